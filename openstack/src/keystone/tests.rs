use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::fake::Server;

fn settings(auth_url: &str, pairs: &[(&str, &str)]) -> Settings {
    let mut env: BTreeMap<String, String> =
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    env.insert("OS_AUTH_URL".into(), auth_url.into());
    Settings::of(None, env, &[]).unwrap()
}

const USER: [(&str, &str); 4] =
    [("OS_USERNAME", "demo"), ("OS_PASSWORD", "secret"), ("OS_PROJECT_NAME", "demo"), ("OS_INTERFACE", "internal")];

fn run(settings: &Settings) -> std::result::Result<Session, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    runtime.block_on(login(&http, settings)).map_err(|failure| match failure {
        Failure::Passing(e, _) | Failure::Final(e) => e,
    })
}

fn token() -> Value {
    // A catalogue that names Keystone's inner address, and no address of Keystone for the interface.
    json!({"token": {"project": {"id": "p-1"}, "catalog": [
        {"type": "identity", "endpoints": [{"interface": "public", "region": "R", "url": "http://inner.invalid:5000"}]},
        {"type": "image", "endpoints": [{"interface": "internal", "region": "R", "url": "http://10.0.0.1:9292"}]},
    ]}})
}

#[test]
fn the_login_is_at_auth_url_whatever_the_interface() {
    let server = Server::start(|request| {
        assert!(request.starts_with("POST /identity/v3/auth/tokens HTTP"), "{request}");
        (201, vec![("X-Subject-Token", "t-1".to_owned())], token().to_string())
    });
    for path in ["/identity", "/identity/", "/identity/v3", "/identity/v3/", "/identity/v2.0?x=1"] {
        let session = run(&settings(&format!("http://127.0.0.1:{}{path}", server.port), &USER)).unwrap();
        assert_eq!((session.token.expose_secret(), session.project.as_deref()), ("t-1", Some("p-1")));
    }
    let asked = server.asked();
    let body: Value = serde_json::from_str(asked[0].split("\r\n\r\n").nth(1).unwrap()).unwrap();
    let user = json!({"name": "demo", "domain": {"id": "default"}, "password": "secret"});
    assert_eq!(body["auth"]["identity"], json!({"methods": ["password"], "password": {"user": user}}));
    assert_eq!(body["auth"]["scope"], json!({"project": {"name": "demo", "domain": {"id": "default"}}}));
}

#[test]
fn each_login_sends_what_keystone_wants() {
    let server = Server::start(|_| (201, vec![("X-Subject-Token", "t-1".to_owned())], token().to_string()));
    let url = format!("http://127.0.0.1:{}", server.port);
    let sent = |pairs: &[(&str, &str)]| {
        run(&settings(&url, pairs)).unwrap();
        let asked = server.asked().pop().unwrap();
        let body: Value = serde_json::from_str(asked.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        body["auth"].clone()
    };
    let auth = sent(&[
        ("OS_APPLICATION_CREDENTIAL_ID", "a"),
        ("OS_APPLICATION_CREDENTIAL_SECRET", "s"),
        ("OS_PROJECT_NAME", "p"),
    ]);
    assert_eq!(auth["identity"]["application_credential"], json!({"id": "a", "secret": "s"}));
    assert!(auth.get("scope").is_none(), "a credential has its own");
    let auth = sent(&[
        ("OS_AUTH_TYPE", "v3applicationcredential"),
        ("OS_APPLICATION_CREDENTIAL_NAME", "a"),
        ("OS_APPLICATION_CREDENTIAL_SECRET", "s"),
        ("OS_USERNAME", "u"),
        ("OS_USER_DOMAIN_NAME", "D"),
    ]);
    let user = json!({"name": "u", "domain": {"name": "D"}});
    assert_eq!(auth["identity"]["application_credential"], json!({"name": "a", "secret": "s", "user": user}));
    let auth = sent(&[("OS_TOKEN", "t"), ("OS_PROJECT_ID", "p")]);
    assert_eq!(
        auth,
        json!({"identity": {"methods": ["token"], "token": {"id": "t"}}, "scope": {"project": {"id": "p"}}})
    );
    let auth = sent(&[("OS_AUTH_TYPE", "v3totp"), ("OS_USER_ID", "u"), ("OS_PASSCODE", "123456")]);
    assert_eq!(auth["identity"]["totp"], json!({"user": {"id": "u", "passcode": "123456"}}));
    let factors = [("OS_AUTH_TYPE", "v3multifactor"), ("OS_AUTH_METHODS", "v3password,v3totp")];
    let user = [("OS_USER_ID", "u"), ("OS_PASSWORD", "p"), ("OS_PASSCODE", "1"), ("OS_TRUST_ID", "t")];
    let auth = sent(&[&factors[..], &user[..]].concat());
    assert_eq!(
        auth["identity"],
        json!({"methods": ["password", "totp"], "password": {"user": {"id": "u", "password": "p"}},
            "totp": {"user": {"id": "u", "passcode": "1"}}})
    );
    assert_eq!(auth["scope"], json!({"OS-TRUST:trust": {"id": "t"}}));
}

#[test]
fn a_login_for_two_things_or_by_an_unknown_factor_is_not_sent() {
    let rule = |more: &[(&str, &str)]| {
        let variables = [&USER[..], &[("OS_PROJECT_NAME", "n")], more].concat();
        run(&settings("http://127.0.0.1:9", &variables)).err().unwrap().rule().to_owned()
    };
    assert_eq!(rule(&[("OS_TRUST_ID", "t")]), "cloud.scope");
    assert_eq!(rule(&[("OS_SYSTEM_SCOPE", "all")]), "cloud.scope");
    assert_eq!(rule(&[("OS_SYSTEM_SCOPE", "some")]), "cloud.scope");
    assert_eq!(rule(&[("OS_AUTH_TYPE", "v3multifactor"), ("OS_AUTH_METHODS", "v3password,eye")]), "cloud.auth_methods");
    assert_eq!(rule(&[("OS_AUTH_TYPE", "v3multifactor")]), "cloud.auth_type");
}

#[test]
fn what_is_no_keystone_is_called_so_and_its_page_is_not_shown() {
    let refused = |status: u16, headers: Vec<(&'static str, String)>, body: &'static str| {
        let server = Server::start(move |_| (status, headers.clone(), body.to_owned()));
        run(&settings(&format!("http://127.0.0.1:{}/dashboard", server.port), &USER)).err().unwrap()
    };
    let e = refused(404, Vec::new(), "<html>secret page</html>");
    assert_eq!(e.rule(), "cloud.auth_url");
    assert!(e.to_string().contains("/dashboard/v3/") && !e.to_string().contains("html"), "{e}");
    assert_eq!(refused(200, Vec::new(), "{}").rule(), "cloud.auth_url");
    let e = refused(301, vec![("Location", "https://else.invalid/".into())], "");
    assert!(e.rule() == "cloud.auth_url" && e.to_string().contains("https://else.invalid/"), "{e}");
    let e = refused(
        401,
        Vec::new(),
        r#"{"error":{"code":401,"message":"The request you have made requires authentication."}}"#,
    );
    assert!(e.rule() == "cloud.login" && e.to_string().contains("requires authentication"), "{e}");
    let e = refused(503, Vec::new(), "<html>");
    assert_eq!((e.kind(), e.rule()), (ErrorKind::Io, "cloud.login"));
}

#[test]
fn a_secret_that_is_missing_is_named() {
    let e = run(&settings("http://127.0.0.1:9", &[("OS_USERNAME", "u"), ("OS_PROJECT_NAME", "p")])).err().unwrap();
    assert_eq!(e.rule(), "cloud.login");
    assert!(e.to_string().contains("OS_PASSWORD"), "{e}");
}
