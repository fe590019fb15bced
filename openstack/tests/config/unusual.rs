//! Files and variables that are legal and seldom: what people have written where nobody looked.

use super::{Case, auth, one};

/// `{cwd}` in a variable is the folder of the files.
pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for more in [
        "    auth_type: v3multifactor\n    auth_methods: [v3password, v3totp]\n    passcode: 012345\n",
        "    auth_type: v3multifactor\n    auth_methods: v3password,v3totp\n    passcode: '012345'\n",
        "    image_service_name: other\n    volume_service_type: volumev3\n    volume_service_name: cinder\n",
        "    volume_api_version: 3\n    image_api_version: '2'\n    key_manager_api_version: 1\n",
        "    key_manager_interface: internal\n    volume_interface: admin\n",
        "    key-manager-interface: internal\n    volumev3_interface: admin\n",
        "    volume_interface: admin\n    volumev3_interface: internal\n",
        "    block_storage_interface: null\n    volumev3_interface: internal\n",
        "    block_storage_region_name: ~\n    volume_region_name: R7\n",
        "    block_storage_endpoint_override: ~\n    volume_endpoint_override: http://v.example/v3\n",
        "    block_store_endpoint_override: http://b.example/v3\n",
        "    image_endpoint: http://i.example\n",
        "    interface: [nosuch, admin]\n",
        "    interface: [internalURL, publicURL]\n    image_interface: [adminURL]\n",
        "    interface: null\n",
        "    endpoint_type: internalURL\n    interface: adminURL\n",
        "    interface: adminURL\n    endpoint_type: internalURL\n",
        "    regions: [R2, R1]\n    region_name: R1\n",
        "    regions: [{name: R2, values: {interface: internal, auth: {project_name: z}}}]\n",
        "    regions: [{name: R2, values: {image_endpoint_override: 'http://{region_name}.example', cacert: /r.pem}}]\n",
        "    regions: [{name: R2}, R1]\n",
        "    regions: []\n",
        "    regions: []\n    region_name: R2\n",
        "    region_name: [R2]\n",
        "    profile: nosuchvendor\n",
        "    cloud: nosuchvendor\n",
        "    cloud: envvars\n",
        "    profile: ''\n",
        "    profile: elastx\n",
        "    profile: otc\n    region_name: R1\n",
        "    profile: ovh-us\n    auth_type: v3password\n",
        "    domain_id: outer\n",
        "    user_domain_name: outer\n    project-domain-id: pd\n",
        "    username: outer\n    password: outer\n",
        "    auth_url: http://outer.example/v3\n",
        "    project_name: outer\n",
        "    tenant_id: outer\n",
        "    project-id: outer\n    tenant-name: t\n",
        "    cacert: /ca.pem\n    verify: 'true'\n",
        "    insecure: false\n    verify: true\n    cert: ''\n    key: /k.pem\n",
        "    insecure: null\n",
        "    insecure: 'False'\n",
        "    api_timeout: 30\n    volume_timeout: 5\n",
        "    networks: [{name: n, routes_externally: true}]\n    floating_ip_source: None\n",
        "    object_store_endpoint_override: http://s.example/v1/AUTH_x\n",
        "    vendor_hook: x\n    message: hello\n    status: deprecated\n",
        "client:\n  force_ipv4: true\ncache: {auth: true, expiration_time: 3600, class: dogpile.cache.memory}\n",
        "metrics: {statsd: {host: h, port: 1}}\nansible: {use_hostnames: true}\n",
        "...\n",
        "  'two words':\n    auth: {}\n  tw\u{f6}: {regions: [x]}\n",
    ] {
        all.push(Case { files: vec![("clouds.yaml", one(more))], env: vec![], cloud: Some("one") });
    }
    for (login, more) in [
        ("username: u, password: p, user_domain_name: D, trust_id: t", ""),
        ("username: u, password: p, user_domain_name: D, domain_name: D", ""),
        ("username: u, password: p, user_domain_name: D, system_scope: all", ""),
        ("username: u, password: p, project_name: n, domain_name: D, user_domain_id: x", ""),
        ("username: u, password: p, project_name: n", "    domain_id: outer\n"),
        ("username: u, password: p", "    domain_id: outer\n"),
        ("username: u, password: p, project_name: n", "    domain_name: outer\n    project_domain_id: x\n"),
        ("user_id: i, username: u, password: p, project_id: pi, project_name: n", ""),
        ("username: u, password: p, user_domain_name: D", "    project_id: 77\n"),
        ("user-name: a, user_name: b, password: p, project_name: n", ""),
        ("username: u, user_name: b, password: p, project_name: n", ""),
        ("username: a, username: b, password: p, project_name: n", ""),
        ("token: t, project_name: n, project_domain_name: D", "    auth_type: token\n"),
        ("token: t, trust_id: x", "    auth_type: v3token\n"),
        ("auth-token: t, tenant_id: x", "    auth_type: v3token\n"),
        (
            "application_credential_name: i, application_credential_secret: s, username: u, user_domain_name: D",
            "    auth_type: v3applicationcredential\n",
        ),
        (
            "application_credential_name: i, application_credential_secret: 0777, user_id: u",
            "    auth_type: v3applicationcredential\n    region_name: R1\n",
        ),
        ("username: u, user_domain_id: d, passcode: 000123, project_id: p", "    auth_type: v3totp\n"),
        (
            "username: u, user_domain_name: D, passcode: '000123', password: p, tenant_name: t, project_domain_id: d",
            "    auth_type: v3multifactor\n    auth_methods: [v3totp, v3password]\n",
        ),
    ] {
        let text = auth(login, more);
        all.push(Case { files: vec![("clouds.yaml", text)], env: vec![], cloud: Some("one") });
    }
    for name in [
        "123",
        "no",
        "2024-01-02",
        "2024-01-02 10:00:00",
        "2001-12-14t21:59:43.10-05:00",
        "2024-1-2 3:04:05.000",
        "1.0",
        ".nan",
        "1_2.5",
        "190:20:30.15",
        "12:30:45",
        "0b11",
        "-0x10",
        "1e3",
        "6.02e+23",
        "!!str 0123",
        "!!int '12'",
        "!secret n",
        "! n",
        "n#x",
        "n # comment",
        "'a: b'",
        "\"p\\u00e4\\t\"",
        "''",
        "=x",
        "08",
        "0",
        "+5",
        ".5",
        "1.",
        "0o17",
        "|-\n        several\n        lines",
        ">-\n        one\n        line",
    ] {
        let text = one("").replace("project_name: n", &format!("project_name: {name}"));
        all.push(Case { files: vec![("clouds.yaml", text)], env: vec![], cloud: Some("one") });
    }
    all.extend(files());
    all.extend(variables());
    all
}

fn files() -> Vec<Case> {
    let usual = one("");
    let of = |files: &[(&'static str, &str)], env: &[(&'static str, &'static str)], cloud| Case {
        files: files.iter().map(|(name, text)| (*name, (*text).to_owned())).collect(),
        env: env.to_vec(),
        cloud,
    };
    let file = |text: &str| of(&[("clouds.yaml", text)], &[], Some("one"));
    let two = |name: &'static str, text: &str| of(&[("clouds.yaml", &usual), (name, text)], &[], Some("one"));
    let profile = one("    profile: v\n");
    let vendor = |own: &str, text: &str| of(&[("clouds.yaml", own), ("clouds-public.yaml", text)], &[], Some("one"));
    vec![
        file(&format!("\u{feff}{usual}")),
        file(&usual.replace('\n', "\r\n")),
        file(&usual.replace("    auth:", "\tauth:")),
        file(&format!("%YAML 1.1\n---\n{usual}")),
        file(&format!("--- # first\n{usual}...\n")),
        file(&format!("{usual}---\nclouds: {{two: {{}}}}\n")),
        file(&usual.replace("clouds:", "\"clouds\":")),
        file(&usual.replace("  one:", "  ? one\n  :")),
        file(&format!("base: &b {{interface: internal, region_name: R1}}\n{usual}    <<: *b\n    region_name: R2\n")),
        file(
            "a: &a\n  auth_url: https://id.example\n  username: u\n  password: p\nclouds:\n  one: {auth: *a, verify: off}\n",
        ),
        file(
            "clouds:\n  base: &b\n    auth: &a {auth_url: 'https://id.example', username: u, password: p}\n  one:\n    <<: *b\n    auth: {<<: *a, username: v, project_name: n}\n",
        ),
        of(&[("clouds.yaml", "clouds:\n  one:\n")], &[], Some("one")),
        of(&[("clouds.yaml", "clouds:\n")], &[], Some("one")),
        of(&[("clouds.yaml", "")], &[], Some("one")),
        two("secure.yaml", "clouds: {one: {auth: {password: s}, region_name: R2, interface: internal}}"),
        two("secure.yml", "clouds:\n  one:\n    auth: {password: 0777}\n"),
        two("secure.json", "{\"clouds\": {\"one\": {\"auth\": {\"password\": 12}}}}"),
        two("secure.yaml", "clouds: {two: {auth: {password: s}}}"),
        two("secure.yaml", ""),
        two("secure.yaml", "other: 1"),
        of(&[("secure.yaml", &usual)], &[], Some("one")),
        of(
            &[("clouds.yaml", &usual), ("mine", "clouds: {one: {auth: {password: s}}}")],
            &[("OS_CLIENT_SECURE_FILE", "{cwd}/mine")],
            Some("one"),
        ),
        of(
            &[("clouds.yaml", &usual), ("mine.yaml", &one("    region_name: R5\n"))],
            &[("OS_CLIENT_CONFIG_FILE", "{cwd}/mine.yaml")],
            Some("one"),
        ),
        of(&[("clouds.yaml", &usual)], &[("OS_CLIENT_CONFIG_FILE", "{cwd}/none")], Some("one")),
        of(
            &[("clouds.yaml", &one("    region_name: R1\n")), ("clouds.yml", &one("    region_name: R2\n"))],
            &[],
            Some("one"),
        ),
        of(
            &[(
                "clouds.json",
                "{\"clouds\": {\"one\": {\"verify\": false, \"auth\": {\"auth_url\": \"https://i\", \"username\": \"u\", \
            \"password\": 1.50, \"project_name\": true}}}}",
            )],
            &[],
            Some("one"),
        ),
        vendor(
            &profile,
            "public-clouds: {v: {auth: {username: vu, user_domain_name: VD}, region_name: R2, interface: internal}}",
        ),
        vendor(
            &one("    profile: v\n    regions: [R1]\n"),
            "public-clouds: {v: {regions: [{name: R2, values: {interface: admin}}]}}",
        ),
        vendor(
            &one("    profile: v\n    region_name: R2\n"),
            "public-clouds: {v: {regions: [R1, {name: R2, values: {interface: admin}}]}}",
        ),
        vendor(&profile, "public-clouds: {v: {regions: [{name: R2, values: {interface: admin}}]}}"),
        vendor(&profile, "public-clouds: {v: {profile: w}}"),
        vendor(&profile, "public-clouds: {w: {}}"),
        vendor(&one("    profile: elastx\n"), "public-clouds: {elastx: {region_name: mine}}"),
        vendor(
            "clouds: {one: {cloud: v, auth: {username: u, password: p}}}",
            "public-clouds: {v: {auth: {auth_url: 'https://{region_name}.v'}, regions: [a, b]}}",
        ),
    ]
}

/// What kolla-ansible's `admin-openrc.sh.j2` exports, in its order, with all that it exports in some clouds alone.
const KOLLA: [(&str, &str); 15] = [
    ("OS_PROJECT_DOMAIN_NAME", "Default"),
    ("OS_USER_DOMAIN_NAME", "Default"),
    ("OS_PROJECT_NAME", "admin"),
    ("OS_TENANT_NAME", "admin"),
    ("OS_USERNAME", "admin"),
    ("OS_PASSWORD", "zMwVXGkd6fp0B3jS"),
    ("OS_AUTH_URL", "https://10.0.0.250:5000"),
    ("OS_INTERFACE", "internal"),
    ("OS_ENDPOINT_TYPE", "internalURL"),
    ("OS_MANILA_ENDPOINT_TYPE", "internalURL"),
    ("OS_MISTRAL_ENDPOINT_TYPE", "internalURL"),
    ("OS_IDENTITY_API_VERSION", "3"),
    ("OS_REGION_NAME", "RegionOne"),
    ("OS_AUTH_PLUGIN", "password"),
    ("OS_CACERT", "/etc/ssl/certs/ca-certificates.crt"),
];

fn variables() -> Vec<Case> {
    let usual = [
        ("OS_AUTH_URL", "https://id.example/v3"),
        ("OS_USERNAME", "u"),
        ("OS_PASSWORD", "p"),
        ("OS_USER_DOMAIN_NAME", "D"),
        ("OS_PROJECT_DOMAIN_NAME", "D"),
    ];
    let project = ("OS_PROJECT_NAME", "n");
    let mut all = vec![Case { files: vec![], env: KOLLA.to_vec(), cloud: None }];
    for more in [
        &[project, ("OS_INTERFACE", "admin"), ("OS_ENDPOINT_TYPE", "internalURL")][..],
        &[project, ("OS_VOLUME_API_VERSION", "3"), ("OS_IMAGE_API_VERSION", "2")],
        &[project, ("OS_DEFAULT_DOMAIN", "dd")],
        &[project, ("OS_DOMAIN_NAME", "X")],
        &[("OS_PROJECT_ID", "p"), ("OS_TENANT_ID", "t")],
        &[("OS_TENANT_NAME", "t")],
        &[("OS_SYSTEM_SCOPE", "all")],
        &[("OS_TRUST_ID", "t")],
        &[project, ("OS_PASSWORD", "a b$c{d}")],
        &[project, ("OS_USERNAME", "true")],
        &[project, ("OS_PROJECT_ID", "0123")],
        &[project, ("OS_VOLUME_ENDPOINT_OVERRIDE", "http://v.example/v3")],
        &[
            project,
            ("OS_BLOCK_STORAGE_ENDPOINT_OVERRIDE", "http://b"),
            ("OS_KEY_MANAGER_ENDPOINT_OVERRIDE", "http://k"),
        ],
        &[project, ("OS_IMAGE_INTERFACE", "admin"), ("OS_VOLUMEV3_INTERFACE", "internal")],
        &[project, ("OS_IMAGE_ENDPOINT_TYPE", "adminURL")],
        &[project, ("OS_REGION_NAME", "R2,R1")],
        &[project, ("OS_CERT", "/c.pem")],
        &[project, ("OS_KEY", "/k.pem")],
        &[project, ("OS_PROFILE", "nosuchvendor")],
        &[project, ("OS_PROFILE", "elastx")],
        &[project, ("OS_AUTH_TYPE", "v3multifactor"), ("OS_AUTH_METHODS", "v3password,v3totp"), ("OS_PASSCODE", "1")],
        &[project, ("OS_AUTH_TYPE", "v3totp"), ("OS_PASSCODE", "000123")],
        &[project, ("OS_FORCE_IPV4", "true"), ("OS_LOG_LEVEL", "x"), ("OS_STDOUT_CAPTURE", "1")],
    ] {
        all.push(Case { files: vec![], env: [&usual[..], more].concat(), cloud: None });
    }
    let file = |more: &str| vec![("clouds.yaml", one(more))];
    all.push(Case { files: vec![], env: [&usual[..], &[project]].concat(), cloud: Some("envvars") });
    all.push(Case { files: vec![], env: [&usual[..], &[project, ("OS_CLOUD_NAME", "m")]].concat(), cloud: Some("m") });
    all.push(Case { files: file(""), env: vec![("OS_CLOUD", "one"), ("OS_INTERFACE", "internal")], cloud: None });
    all.push(Case { files: file(""), env: vec![("OS_CLOUD", "one"), ("OS_PROJECT_NAME", "other")], cloud: None });
    all.push(Case { files: file("    region_name: R1\n"), env: vec![("OS_REGION_NAME", "R2")], cloud: Some("one") });
    all.push(Case { files: file(""), env: [&usual[..], &[project, ("OS_CLOUD", "one")]].concat(), cloud: None });
    all
}
