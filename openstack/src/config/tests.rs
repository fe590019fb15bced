use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use secrecy::ExposeSecret;

use super::*;

fn of(clouds: &str, env: &[(&str, &str)]) -> Result<Settings> {
    let dir = tempfile::tempdir().unwrap();
    if !clouds.is_empty() {
        fs::write(dir.path().join("clouds.yaml"), clouds).unwrap();
    }
    let env: BTreeMap<String, String> = env.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    Settings::of(None, env, &[PathBuf::from(dir.path())])
}

fn auth<'a>(settings: &'a Settings, key: &str) -> &'a str {
    settings.auth.get(key).map_or("", |value| value.expose_secret())
}

const ONE: &str = "clouds:\n  one:\n    auth: {auth_url: 'https://id/v3', username: u, password: p, project_name: n}\n";

/// What kolla-ansible's post-deploy writes.
const KOLLA: [(&str, &str); 13] = [
    ("OS_PROJECT_DOMAIN_NAME", "Default"),
    ("OS_USER_DOMAIN_NAME", "Default"),
    ("OS_PROJECT_NAME", "admin"),
    ("OS_TENANT_NAME", "admin"),
    ("OS_USERNAME", "admin"),
    ("OS_PASSWORD", "secret"),
    ("OS_AUTH_URL", "http://10.0.0.250:5000"),
    ("OS_INTERFACE", "internal"),
    ("OS_ENDPOINT_TYPE", "internalURL"),
    ("OS_IDENTITY_API_VERSION", "3"),
    ("OS_REGION_NAME", "RegionOne"),
    ("OS_AUTH_PLUGIN", "password"),
    ("OS_CACERT", ""),
];

#[test]
fn kollas_openrc() {
    let settings = of("", &KOLLA).unwrap();
    assert_eq!((&*settings.auth_type, settings.cacert.as_deref()), ("password", None));
    assert_eq!(settings.interfaces(&["image"])[0], "internal");
    assert_eq!((auth(&settings, "project_name"), settings.region.as_deref()), ("admin", Some("RegionOne")));
}

#[test]
fn null_clouds_hurt_nobody_but_themselves() {
    let text = format!("{ONE}  two:\n");
    assert_eq!(of(&text, &[("OS_CLOUD", "one")]).unwrap().auth_url, "https://id/v3");
    let e = of(&text, &[("OS_CLOUD", "two")]).err().unwrap();
    assert!(e.rule() == "cloud.cloud" && e.to_string().contains("nothing in it"), "{e}");
}

#[test]
fn an_error_names_the_line_and_quotes_nothing() {
    let e = of("clouds:\n  one:\n    auth: {password: hunter2\n  ]\n", &[]).err().unwrap();
    assert_eq!(e.rule(), "cloud.clouds.yaml");
    assert!(e.to_string().contains("clouds.yaml, line 4") && !e.to_string().contains("hunter2"), "{e}");
}

#[test]
fn the_check_of_certificates_is_waived_by_the_clouds_own_entry_alone() {
    assert!(!of(&format!("{ONE}    verify: no\n"), &[]).unwrap().verify);
    assert!(!of(&format!("{ONE}    insecure: true\n"), &[]).unwrap().verify);
    for (name, value) in [("OS_INSECURE", "true"), ("OS_VERIFY", "false"), ("OS_INSECURE", "1")] {
        let settings = of(ONE, &[("OS_CLOUD", "one"), (name, value)]).unwrap();
        assert!(settings.verify && settings.notes.len() == 1 && settings.notes[0].contains(name), "{name}");
        let settings = of("", &[("OS_AUTH_URL", "https://id"), (name, value)]).unwrap();
        assert!(settings.verify && settings.notes.iter().any(|note| note.contains(name)), "{name}");
    }
    let settings = of(&format!("{ONE}    verify: /etc/ca.pem\n"), &[]).unwrap();
    assert!(settings.verify && settings.cacert.as_deref() == Some("/etc/ca.pem"));
}

#[test]
fn profiles_that_are_no_data_are_refused_by_name() {
    let with = |profile: &str| of(&format!("clouds:\n  one:\n    profile: {profile}\n"), &[]);
    let settings = with("citycloud").unwrap();
    assert_eq!(
        (&*settings.auth_url, settings.region.as_deref()),
        ("https://Buf1.citycloud.com:5000/v3/", Some("Buf1"))
    );
    for (profile, word) in [("ovh", "https://ovhcloud.com"), ("ultimum", "no more"), ("nobody", "no vendor's profile")]
    {
        let e = with(profile).err().unwrap();
        assert!(e.rule() == "cloud.profile" && e.to_string().contains(word), "{e}");
    }
}
