//! What we make of clouds.yaml and variables, and what openstacksdk makes of them: the same, but where SECURITY.md or
//! `config/merge.rs` says otherwise.

#![cfg(all(feature = "client", feature = "peer-tests"))]
// A test ends where something is not as it should be; clippy.toml excuses only functions marked #[test].
#![allow(clippy::unwrap_used)]

#[path = "config/unusual.rs"]
mod unusual;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use secrecy::ExposeSecret;
use serde_json::{Value, json};
use unluks_openstack::config::Settings;

struct Case {
    files: Vec<(&'static str, String)>,
    env: Vec<(&'static str, &'static str)>,
    cloud: Option<&'static str>,
}

/// The Python that has openstacksdk; pip installs it the first time.
fn python() -> PathBuf {
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("openstacksdk-4.22.0");
    let python = venv.join("bin/python");
    let run = |command: &mut Command| {
        let out = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}: apt-get install python3-venv"));
        assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    };
    if !venv.join("whole").exists() {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv));
        run(Command::new(&python).args(["-m", "pip", "--quiet", "install", "openstacksdk==4.22.0"]));
        fs::write(venv.join("whole"), "").unwrap();
    }
    python
}

fn theirs(cases: &[Case]) -> Vec<Value> {
    let list: Vec<Value> = cases
        .iter()
        .map(|case| {
            let files: BTreeMap<_, _> = case.files.iter().cloned().collect();
            let env: BTreeMap<_, _> = case.env.iter().copied().collect();
            json!({"files": files, "env": env, "cloud": case.cloud})
        })
        .collect();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/view.py");
    let mut command = Command::new(python());
    let mut child = command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(json!(list).to_string().as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success());
    serde_json::from_slice(&out.stdout).unwrap()
}

fn ours(case: &Case) -> Value {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in &case.files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let here = |value: &str| value.replace("{cwd}", dir.path().to_str().unwrap());
    let env = case.env.iter().map(|(name, value)| ((*name).to_owned(), here(value))).collect();
    let settings = match Settings::of(case.cloud, env, &[dir.path().to_owned()]) {
        Ok(settings) => settings,
        Err(e) => return json!({"error": e.to_string()}),
    };
    let mut auth: BTreeMap<&str, &str> =
        settings.auth.iter().map(|(key, value)| (key.as_str(), value.expose_secret())).collect();
    auth.insert("auth_url", &settings.auth_url);
    const KNOWN: [&str; 19] = [
        "auth_url",
        "username",
        "user_id",
        "user_domain_id",
        "user_domain_name",
        "password",
        "project_id",
        "project_name",
        "project_domain_id",
        "project_domain_name",
        "domain_id",
        "domain_name",
        "token",
        "passcode",
        "application_credential_id",
        "application_credential_name",
        "application_credential_secret",
        "trust_id",
        "system_scope",
    ];
    auth.retain(|key, _| KNOWN.contains(key));
    let kinds: [&[&str]; 3] =
        [&["image"], &["key-manager"], &["block-storage", "block-store", "volumev3", "volumev2", "volume"]];
    json!({
        "auth": auth,
        "auth_type": settings.auth_type,
        "auth_methods": settings.auth_methods,
        "regions": kinds.map(|kinds| settings.region_of(kinds)),
        "interfaces": kinds.map(|kinds| settings.interfaces(kinds)),
        "verify": settings.verify,
        "cacert": settings.cacert.as_deref().filter(|_| settings.verify),
        "cert": settings.cert,
        "overrides": kinds.map(|kinds| settings.endpoint_override(kinds)),
    })
}

/// What the two must agree in. Plugins drop what is not theirs, and interfaces have two spellings.
fn comparable(mut view: Value, other: &Value) -> Value {
    if let (Some(auth), Some(other)) = (view.get_mut("auth").and_then(Value::as_object_mut), other.get("auth")) {
        auth.retain(|key, _| other.get(key).is_some() || !["passcode", "token", "password"].contains(&key.as_str()));
    }
    for list in view.get_mut("interfaces").and_then(Value::as_array_mut).into_iter().flatten() {
        for name in list.as_array_mut().into_iter().flatten() {
            *name = name.as_str().map(|name| name.trim_end_matches("URL")).into();
        }
    }
    view
}

/// A clouds.yaml of one cloud with a usual login, and more.
fn one(more: &str) -> String {
    format!(
        "clouds:\n  one:\n    auth:\n      auth_url: https://id.example:5000/v3\n      username: u\n      password: p\n      \
         project_name: n\n      user_domain_name: D\n      project_domain_name: D\n{more}"
    )
}

/// A clouds.yaml of one cloud with that for `auth`, and more.
fn auth(auth: &str, more: &str) -> String {
    format!("clouds:\n  one:\n    auth: {{auth_url: 'https://id.example', {auth}}}\n{more}")
}

fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    let mut yaml = |text: String| {
        all.push(Case { files: vec![("clouds.yaml", text)], env: vec![], cloud: Some("one") });
    };
    for more in [
        "",
        "    region_name: R1\n",
        "    region_name: R1,R2\n",
        "    region_name: [R1, R2]\n",
        "    region_name: ''\n",
        "    regions: [R1, R2]\n",
        "    regions: [{name: R1, values: {interface: internal}}, R2]\n",
        "    regions:\n      - name: R1\n        values:\n          auth:\n            auth_url: https://r1.example\n",
        "    interface: internal\n",
        "    interface: internalURL\n",
        "    interface: [internal, public]\n",
        "    endpoint_type: admin\n",
        "    image_interface: internal\n",
        "    image_endpoint_type: adminURL\n",
        "    verify: false\n",
        "    verify: no\n",
        "    verify: off\n",
        "    verify: true\n",
        "    insecure: true\n",
        "    insecure: 'True'\n",
        "    insecure: 'no'\n",
        "    verify: false\n    cacert: /ca.pem\n",
        "    cacert: /ca.pem\n",
        "    cacert: ''\n",
        "    cacert: ''\n    verify: false\n",
        "    cacert: null\n",
        "    cert: /c.pem\n",
        "    cert: /c.pem\n    key: /k.pem\n",
        "    image_endpoint_override: http://i.example/\n",
        "    volume_endpoint_override: http://v.example/v3\n",
        "    block-storage-endpoint-override: http://b.example\n",
        "    key_manager_endpoint_override: http://k.example\n    region_name: R1\n",
        "    auth_type: v3password\n",
        "    auth_plugin: v3password\n",
        "    auth-type: v3password\n",
        "    image_region_name: R9\n    region_name: R1\n",
        "    volumev3_endpoint_override: 'http://{region_name}.example'\n    region_name: R1\n",
        "    tenant_name: other\n",
        "    project_id: 0123\n",
        "    username: outer\n",
        "    password: 12345\n",
        "    identity_api_version: 3\n",
        "  two:\n",
        "  two: {auth: null}\n",
        "    trust_id: t\n",
    ] {
        yaml(one(more));
    }
    for (login, more) in [
        ("username: u, password: 12345, tenant_name: n", ""),
        ("username: u, password: 0123, tenant_id: 12", ""),
        ("username: u, password: 1.10, project-name: n, user-domain-id: d", ""),
        ("username: u, password: p, domain_name: D, project_name: n", ""),
        ("username: u, password: p, domain_id: D, project_name: n", ""),
        ("username: u, password: p, domain_id: D", ""),
        ("user-name: u, password: p, project_name: on", ""),
        ("user_id: u, password: 1_000, project_id: 1e3", ""),
        ("username: u, password: p, tenant_name: t, project_name: p", ""),
        ("token: t, project_id: p", "    auth_type: token\n"),
        ("auth_token: t, project_id: p", "    auth_type: v3token\n"),
        ("application_credential_id: i, application_credential_secret: s", "    auth_type: v3applicationcredential\n"),
        ("application-credential-id: i, application-credential-secret: s", "    auth_type: v3applicationcredential\n"),
        (
            "username: u, user_domain_name: D, passcode: 0123456, project_name: n, project_domain_name: D",
            "    auth_type: v3totp\n",
        ),
        ("username: u, password: p, system_scope: all", ""),
        ("username: 'yes', password: 12:30, project_name: 0x1F", ""),
        ("username: \"u\", password: 'it''s', project_name: 2024-01-02", ""),
        ("username: u, password: ~, project_name: n", ""),
    ] {
        yaml(auth(login, more));
    }
    yaml("x: &x\n  auth: &a {auth_url: 'https://id.example', username: u, password: p}\n  region_name: R1\nclouds:\n  one:\n    <<: *x\n    auth:\n      <<: *a\n      project_name: n\n".into());
    yaml("x: &x {region_name: R1}\ny: &y {interface: internal}\nclouds:\n  one:\n    <<: [*x, *y]\n    auth: {auth_url: 'https://id.example', username: u, password: p}\n".into());
    for profile in ["citycloud", "elastx", "otc", "binero", "auro", "limestonenetworks", "bluebox", "ultimum"] {
        yaml(format!(
            "clouds:\n  one:\n    profile: {profile}\n    auth: {{username: u, password: p, project_name: n}}\n"
        ));
    }
    yaml("clouds:\n  one:\n    cloud: zetta\n    auth: {username: u, password: p}\n".into());
    yaml(
        "clouds:\n  one:\n    profile: citycloud\n    region_name: Sto2\n    auth: {username: u, password: p}\n".into(),
    );

    let mut env = |env: &[(&'static str, &'static str)], files: Vec<(&'static str, String)>, cloud| {
        all.push(Case { files, env: env.to_vec(), cloud });
    };
    let usual = [
        ("OS_AUTH_URL", "https://id.example:5000"),
        ("OS_USERNAME", "u"),
        ("OS_PASSWORD", "p"),
        ("OS_PROJECT_NAME", "n"),
    ];
    for more in [
        &[][..],
        &[("OS_INTERFACE", "internal")],
        &[("OS_ENDPOINT_TYPE", "internalURL")],
        &[("OS_REGION_NAME", "R1")],
        &[("OS_REGION_NAME", "")],
        &[("OS_CACERT", "")],
        &[("OS_CACERT", "/ca.pem")],
        &[("OS_PROJECT_ID", "")],
        &[("OS_TENANT_NAME", "t")],
        &[("OS_TENANT_ID", "t")],
        &[("OS_USER_DOMAIN_NAME", "D"), ("OS_PROJECT_DOMAIN_ID", "d")],
        &[("OS_AUTH_TYPE", "v3password"), ("OS_USER_DOMAIN_NAME", "D"), ("OS_PROJECT_DOMAIN_NAME", "D")],
        &[("OS_AUTH_PLUGIN", "password")],
        &[("OS_CERT", "/c.pem"), ("OS_KEY", "/k.pem")],
        &[("OS_IDENTITY_API_VERSION", "3"), ("OS_USER_DOMAIN_ID", "")],
        &[("OS_IMAGE_ENDPOINT_OVERRIDE", "http://i.example")],
        &[("OS_CLOUD", "envvars")],
        &[("OS_CLOUD_NAME", "mine")],
        &[
            ("OS_TENANT_NAME", "admin"),
            ("OS_PROJECT_DOMAIN_NAME", "Default"),
            ("OS_USER_DOMAIN_NAME", "Default"),
            ("OS_INTERFACE", "internal"),
            ("OS_ENDPOINT_TYPE", "internalURL"),
            ("OS_IDENTITY_API_VERSION", "3"),
            ("OS_REGION_NAME", "RegionOne"),
            ("OS_AUTH_PLUGIN", "password"),
        ],
    ] {
        env(&[&usual[..], more].concat(), vec![], None);
    }
    env(
        &[
            ("OS_AUTH_URL", "https://id.example"),
            ("OS_AUTH_TYPE", "v3applicationcredential"),
            ("OS_APPLICATION_CREDENTIAL_ID", "i"),
            ("OS_APPLICATION_CREDENTIAL_SECRET", "s"),
        ],
        vec![],
        None,
    );
    env(
        &[
            ("OS_AUTH_URL", "https://id.example"),
            ("OS_AUTH_TYPE", "v3token"),
            ("OS_TOKEN", "t"),
            ("OS_PROJECT_ID", "p"),
        ],
        vec![],
        None,
    );
    let file = || vec![("clouds.yaml", one("    region_name: R1\n"))];
    env(&[], file(), None);
    env(&[("OS_CLOUD", "one")], file(), None);
    env(&[("OS_CLOUD", "one"), ("OS_USERNAME", "other"), ("OS_PASSWORD", "other")], file(), None);
    env(&[("OS_CLOUD", "two")], file(), None);
    env(&usual, file(), None);
    env(&usual, file(), Some("one"));
    env(&[("OS_CLOUD", "one")], vec![("clouds.yml", one(""))], None);
    env(
        &[],
        vec![(
            "clouds.json",
            r#"{"clouds": {"one": {"auth": {"auth_url": "https://id.example", "username": "u", "password": "p"}}}}"#
                .into(),
        )],
        None,
    );
    let secret = "clouds:\n  one:\n    auth:\n      password: secret\n    cacert: /s.pem\n";
    env(&[("OS_CLOUD", "one")], vec![("clouds.yaml", one("")), ("secure.yaml", secret.into())], None);
    let public = "public-clouds:\n  vendor:\n    auth: {auth_url: 'https://vendor.example'}\n    region_name: V\n";
    let mine = "clouds:\n  one:\n    profile: vendor\n    auth: {username: u, password: p}\n";
    env(&[], vec![("clouds.yaml", mine.into()), ("clouds-public.yaml", public.into())], None);
    env(
        &[("OS_CLOUD", "envvars")],
        vec![("clouds.yaml", "clouds:\n  envvars:\n    auth: {auth_url: 'https://x'}\n".into())],
        None,
    );
    all
}

#[test]
fn every_variant_is_what_openstacksdk_makes_of_it() {
    let mut cases = cases();
    cases.extend(unusual::cases());
    assert!(cases.len() >= 200, "{}", cases.len());
    let mut wrong = String::new();
    for (case, theirs) in cases.iter().zip(theirs(&cases)) {
        let ours = ours(case);
        let both_refuse = ours.get("error").is_some() && theirs.get("error").is_some();
        let (a, b) = (comparable(ours.clone(), &theirs), comparable(theirs.clone(), &ours));
        if !both_refuse && a != b {
            wrong += &format!("{:?} {:?} {:?}\n  ours:   {a}\n  theirs: {b}\n", case.files, case.env, case.cloud);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
