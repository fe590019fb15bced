//! Every way to log in, and what a refusal says.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::support::proxy::{Fault, Proxy};
use crate::support::{Desk, Run, bed};

/// What `openrc` exports.
fn openrc() -> Vec<(String, String)> {
    let text = fs::read_to_string(bed().state.join("openrc")).unwrap();
    let lines = text.lines().filter_map(|l| l.strip_prefix("export ")?.split_once('='));
    lines.map(|(n, v)| (n.to_owned(), v.trim_matches(['\'', '"']).to_owned())).collect()
}

fn variable(name: &str) -> String {
    openrc().into_iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("openrc has no {name}")).1
}

#[test]
fn the_application_credential() {
    let desk = Desk::new("bed-appcred");
    desk.fetch(bed().id("luks1"), &[]).ok();
    desk.assert_whole(bed().image("luks1"));
    assert_eq!(desk.backup()["cloud"]["name"], "bed-appcred");
}

#[test]
fn the_administrator_sees_the_image_and_not_its_key() {
    let desk = Desk::new("bed-admin");
    desk.fetch(bed().id("luks1"), &[]).refused(2, "secret.access", &["not ours"]);
}

#[test]
fn another_project_does_not_see_the_image() {
    Desk::new("bed-other").fetch(bed().id("luks1"), &[]).refused(2, "image.id", &["another project"]);
}

#[test]
fn a_reader_may_neither_have_the_key_nor_download() {
    let desk = Desk::new("bed-viewer");
    desk.fetch(bed().id("luks1"), &[]).refused(2, "secret.access", &["creator"]);
    desk.fetch(bed().id("luks1"), &["--no-key"]).refused(
        2,
        "image.download",
        &["may be seen", "download_image", "member"],
    );
    desk.assert_nothing_looks_whole();
}

#[test]
fn the_variables_of_an_openrc_file() {
    let mut desk = Desk::new("");
    desk.variables = openrc();
    desk.fetch(bed().id("luks1"), &[]).ok();
    desk.assert_whole(bed().image("luks1"));
    assert!(desk.backup()["cloud"]["name"].is_null());
    // The SDK would keep the token there.
    assert!(!desk.path(".osc").exists());
}

/// What kolla-ansible's `admin-openrc.sh.j2` makes, line by line; `quote` is `'` now, and was nothing in older releases, whose
/// address ended in `/v3`.
fn kolla(quote: &str, auth_url: &str, password: &str) -> String {
    let mut text = String::from(
        "# Ansible managed\n\n# Clear any old environment that may conflict.\n\
         for key in $( set | awk '{FS=\"=\"}  /^OS_/ {print $1}' ); do unset $key ; done\n",
    );
    for (name, value) in [
        ("PROJECT_DOMAIN_NAME", "Default"),
        ("USER_DOMAIN_NAME", "Default"),
        ("PROJECT_NAME", "admin"),
        ("TENANT_NAME", "admin"),
        ("USERNAME", "admin"),
        ("PASSWORD", password),
        ("AUTH_URL", auth_url),
        ("INTERFACE", "internal"),
        ("ENDPOINT_TYPE", "internalURL"),
        ("MANILA_ENDPOINT_TYPE", "internalURL"),
        ("MISTRAL_ENDPOINT_TYPE", "internalURL"),
        ("IDENTITY_API_VERSION", "3"),
        ("REGION_NAME", "RegionOne"),
        ("AUTH_PLUGIN", "password"),
    ] {
        text += &format!("export OS_{name}={quote}{value}{quote}\n");
    }
    text
}

#[test]
fn the_administrators_openrc_of_kolla_ansible() {
    let clouds = bed().clouds_yaml();
    let admin = clouds.split("  bed-admin:").nth(1).unwrap();
    let password = admin.lines().find_map(|line| line.trim().strip_prefix("password: ")).unwrap();
    let keystone = variable("OS_AUTH_URL");
    let keystone = keystone.trim_end_matches('/').trim_end_matches("/v3");
    for (quote, address) in [("'", keystone.to_owned()), ("", format!("{keystone}/v3"))] {
        let desk = Desk::new("");
        fs::write(desk.path("admin-openrc.sh"), kolla(quote, &address, password)).unwrap();
        let unluks = desk.command(&["fetch", "image", bed().id("luks1"), "--output", "backup", "--no-key"]);
        let mut sourced = Command::new("bash");
        sourced.args(["-c", ". ./admin-openrc.sh; exec \"$@\"", "bash"]).arg(unluks.get_program());
        sourced.args(unluks.get_args()).current_dir(desk.path("")).env("HOME", desk.path(""));
        sourced.env("OS_CLOUD", "left over").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Run::of(sourced.spawn().unwrap()).ok();
        assert!(desk.path("backup/image.raw").exists());
    }
}

#[test]
fn a_password_out_of_secure_yaml_or_the_environment() {
    let text = bed().clouds_yaml();
    let password = variable("OS_PASSWORD");
    assert!(text.contains(&password));
    let without: String = text.split_inclusive('\n').filter(|l| !l.contains(&password)).collect();
    let mut desk = Desk::new("bed-demo");
    desk.set_clouds_yaml(&without);
    desk.fetch(bed().id("luks1"), &[]).refused(2, "cloud.login", &["password", "is missing", "secure.yaml"]);
    desk.variables = vec![("OS_PASSWORD".into(), password.clone())];
    desk.fetch(bed().id("luks1"), &[]).ok();

    let mut desk = Desk::new("bed-demo");
    desk.set_clouds_yaml(&without);
    let secure = format!("clouds:\n  bed-demo:\n    auth:\n      password: \"{password}\"\n");
    fs::write(desk.path("secure-clouds.yaml"), secure).unwrap();
    desk.variables = vec![("OS_CLIENT_SECURE_FILE".into(), desk.path("secure-clouds.yaml").to_str().unwrap().into())];
    desk.fetch(bed().id("luks1"), &[]).ok();
}

#[test]
fn a_token() {
    let body = serde_json::json!({"auth": {
        "identity": {"methods": ["password"], "password": {"user": {
            "name": "demo", "domain": {"name": "Default"}, "password": variable("OS_PASSWORD")}}},
        "scope": {"project": {"name": "demo", "domain": {"name": "Default"}}}}});
    let body = body.to_string();
    let mut keystone = TcpStream::connect(("127.0.0.1", bed().port("identity"))).unwrap();
    let head = "POST /v3/auth/tokens HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json";
    write!(keystone, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut answer = String::new();
    keystone.read_to_string(&mut answer).unwrap();
    let token = answer.lines().find_map(|l| l.strip_prefix("X-Subject-Token: ")).expect("a token");

    let mut desk = Desk::new("");
    desk.variables = openrc().into_iter().filter(|(n, _)| n != "OS_PASSWORD" && n != "OS_USERNAME").collect();
    desk.variables.extend([("OS_AUTH_TYPE".into(), "v3token".into()), ("OS_TOKEN".into(), token.into())]);
    desk.fetch(bed().id("luks1"), &[]).ok();
    desk.assert_whole(bed().image("luks1"));
    for entry in fs::read_dir(desk.path("backup")).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(token.len()).any(|w| w == token.as_bytes()), "the token is in the backup");
    }
}

#[test]
fn every_login_that_the_sdk_has_is_linked_in() {
    for (auth_type, secret) in
        [("v3totp", "passcode"), ("v3oidcaccesstoken", "access_token"), ("v3oidcclientcredentials", "")]
    {
        let desk = Desk::new("one");
        let url = format!("http://127.0.0.1:{}/v3", bed().port("identity"));
        let secret = if secret.is_empty() { String::new() } else { format!(", {secret}: '123456'") };
        desk.set_clouds_yaml(&format!(
            "clouds:\n  one:\n    auth_type: {auth_type}\n    auth: {{auth_url: '{url}', username: demo, user_domain_name: Default, \
             project_name: demo, project_domain_name: Default, identity_provider: idp, protocol: openid, client_id: c, client_secret: s, \
             discovery_endpoint: '{url}'{secret}}}\n"
        ));
        let run = desk.fetch(bed().id("luks1"), &[]);
        assert_ne!(run.code, Some(0));
        assert!(!run.stderr.contains("not a supported"), "{auth_type}: {}", run.stderr);
    }
}

#[test]
fn what_is_wrong_with_the_configuration_is_said() {
    let desk = Desk::new("bed-nowhere");
    desk.fetch("x", &[]).refused(2, "cloud.cloud", &["bed-nowhere", "bed-demo"]);
    let password = variable("OS_PASSWORD");
    let desk = Desk::new("bed-demo");
    desk.set_clouds_yaml(&bed().clouds_yaml().replace(&password, "wrong"));
    desk.fetch("x", &[]).refused(2, "cloud.login", &["401", "requires authentication"]);
    // A file that is broken beside the password: the message must not quote it.
    desk.set_clouds_yaml(&format!("clouds:\n  bed-demo:\n    auth: {{password: {password}\n  ]"));
    let run = desk.fetch("x", &[]);
    run.refused(2, "cloud.clouds.yaml", &["clouds.yaml"]);
    assert!(!run.stderr.contains(&password));
    desk.set_clouds_yaml("clouds:\n  bed-demo:\n    auth: {auth_url: 'ftp://x'}\n");
    desk.fetch("x", &[]).refused(2, "cloud.auth_url", &["http or https"]);
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    desk.set_clouds_yaml("clouds:\n  bed-demo:\n    auth: {auth_url: 'http://127.0.0.1:1/v3'}\n");
    desk.fetch("x", &[]).refused(2, "cloud.login", &["names no user", "auth.username"]);
    let elsewhere = format!(":{unused}/");
    desk.set_clouds_yaml(&bed().clouds_yaml().replace(&format!(":{}/", bed().port("identity")), &elsewhere));
    desk.fetch("x", &[]).refused(1, "cloud.connection", &["Keystone cannot be reached"]);
}

#[test]
fn a_login_without_a_project() {
    let desk = Desk::new("bed-demo");
    let text = bed().clouds_yaml();
    desk.set_clouds_yaml(&text.split_inclusive('\n').filter(|l| !l.contains("project_")).collect::<String>());
    desk.fetch(bed().id("luks1"), &[]).refused(2, "cloud.project", &["for no project", "project_name"]);
}

#[test]
fn a_cloud_without_barbican() {
    let keystone = Proxy::start(bed().port("identity"), |_, _| Fault {
        replace: Some(("\"key-manager\"".into(), "\"key-nowhere\"".into())),
        ..Fault::default()
    });
    let desk = Desk::new("bed-demo");
    let text = bed().clouds_yaml().replace(&format!(":{}/", bed().port("identity")), &format!(":{}/", keystone.port));
    desk.set_clouds_yaml(&text);
    let run = desk.fetch(bed().id("luks1"), &[]);
    run.refused(2, "catalog.key-manager", &["Barbican", "whoever runs the cloud"]);
    desk.assert_nothing_looks_whole();
}

/// Keystone behind TLS with a certificate of our own authority: only its port is served.
fn tls_before_keystone(dir: &Path) -> u16 {
    let certtool = |words: &[&str]| {
        let out = Command::new("certtool").args(words).current_dir(dir).output();
        let out = out.unwrap_or_else(|e| panic!("certtool: {e}: apt-get install gnutls-bin"));
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    };
    for name in ["ca", "server"] {
        certtool(&["--generate-privkey", "--bits", "2048", "--outfile", &format!("{name}-key.pem")]);
    }
    fs::write(dir.join("ca.cfg"), "cn = \"test authority\"\nca\ncert_signing_key\nexpiration_days = 2\n").unwrap();
    fs::write(
        dir.join("server.cfg"),
        "cn = \"localhost\"\nip_address = \"127.0.0.1\"\ntls_www_server\nexpiration_days = 2\n",
    )
    .unwrap();
    let sign =
        ["--generate-self-signed", "--load-privkey", "ca-key.pem", "--template", "ca.cfg", "--outfile", "ca.pem"];
    certtool(&sign);
    let by = ["--load-ca-certificate", "ca.pem", "--load-ca-privkey", "ca-key.pem"];
    let what = ["--load-privkey", "server-key.pem", "--template", "server.cfg", "--outfile", "server.pem"];
    certtool(&[&["--generate-certificate"], &by[..], &what[..]].concat());

    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let certificate = CertificateDer::from_pem_file(dir.join("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(dir.join("server-key.pem")).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let (config, keystone) = (Arc::new(config), bed().port("identity"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let config = Arc::clone(&config);
            std::thread::spawn(move || terminate(client, config, keystone).ok());
        }
    });
    port
}

/// One request and its answer.
fn terminate(mut client: TcpStream, config: Arc<rustls::ServerConfig>, keystone: u16) -> std::io::Result<()> {
    let mut tls = rustls::ServerConnection::new(config).unwrap();
    let mut stream = rustls::Stream::new(&mut tls, &mut client);
    let mut request = Vec::new();
    let mut block = [0; 4096];
    let whole = |request: &[u8]| {
        let text = String::from_utf8_lossy(request).to_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
        let len = head.lines().find_map(|l| l.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
        body.len() >= len
    };
    while !whole(&request) {
        match stream.read(&mut block)? {
            0 => return Ok(()),
            n => request.extend_from_slice(&block[..n]),
        }
    }
    let mut upstream = TcpStream::connect(("127.0.0.1", keystone))?;
    upstream.write_all(&request)?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer)?;
    stream.write_all(&answer)?;
    stream.conn.send_close_notify();
    stream.flush()
}

#[test]
fn a_certificate_is_trusted_only_on_the_users_word() {
    let mut desk = Desk::new("bed-demo");
    let port = tls_before_keystone(&desk.path("."));
    let http = format!("http://127.0.0.1:{}/", bed().port("identity"));
    let text = bed().clouds_yaml().replace(&http, &format!("https://127.0.0.1:{port}/"));
    let fetch = |desk: &Desk, own: &str| -> Run {
        desk.set_clouds_yaml(&text.replace("  bed-demo:\n", &format!("  bed-demo:\n{own}")));
        let _ = fs::remove_dir_all(desk.path("backup"));
        desk.fetch(bed().id("luks1"), &[])
    };
    let refused = |run: &Run| {
        run.refused(2, "cloud.certificate", &["Keystone's certificate is not trusted", "cacert"]);
    };
    refused(&fetch(&desk, ""));
    fetch(&desk, "    cacert: ca.pem\n").ok();
    fetch(&desk, "    verify: false\n").ok();
    fetch(&desk, "    cacert: nowhere.pem\n").refused(2, "cloud.cacert", &["nowhere.pem"]);
    fetch(&desk, "    cacert: clouds.yaml\n").refused(2, "cloud.cacert", &["no certificates"]);
    // Not a vendor's profile, and not a variable, may waive the check.
    fs::write(desk.path("clouds-public.yaml"), "public-clouds:\n  vendor:\n    verify: false\n").unwrap();
    refused(&fetch(&desk, "    profile: vendor\n"));
    desk.variables = vec![("OS_VERIFY".into(), "false".into()), ("OS_INSECURE".into(), "true".into())];
    refused(&fetch(&desk, ""));
    // A variable may name the authority.
    desk.variables = vec![("OS_CACERT".into(), "ca.pem".into())];
    fetch(&desk, "").ok();
}
