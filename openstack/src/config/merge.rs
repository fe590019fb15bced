//! How files, variables and profiles become one cloud: openstacksdk's `OpenStackConfig.get_one` (4.22,
//! `openstack/config/loader.py`), rule by rule in its order.
//!
//! It differs where that is the point:
//! - An empty variable is unset, as for the `openstack` program.
//! - `verify: false` and `insecure: true` count in the cloud's own entry only, not from a profile or a variable; a note
//!   says so.
//! - Secrets, region and certificates that a named cloud lacks are taken from the variables, as `openstack` does.
//! - Variables without an address of Keystone are no cloud of their own where clouds.yaml has one.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::yaml::text;
use super::{invalid, vendors};
use unluks::error::{Hint, Result, choice, escape};

/// What was read: each is a whole file.
#[derive(Default)]
pub struct Sources {
    /// clouds.yaml.
    pub clouds: Value,
    /// secure.yaml.
    pub secure: Value,
    /// clouds-public.yaml.
    pub vendor: Value,
    /// All variables that start with `OS_`.
    pub env: BTreeMap<String, String>,
}

/// A cloud.
pub struct Merged {
    /// Its name; `None` for that of the variables.
    pub name: Option<String>,
    /// All of it; `auth` is a map in it.
    pub config: Map<String, Value>,
    /// What was not obeyed.
    pub notes: Vec<String>,
}

/// Variables that choose a cloud, and are none.
const SELECTORS: [&str; 5] =
    ["OS_CLOUD", "OS_REGION_NAME", "OS_CLIENT_CONFIG_FILE", "OS_CLIENT_SECURE_FILE", "OS_CLOUD_NAME"];

/// What is said of a login (options of keystoneauth's plugins), wherever it stands.
const AUTH: [&str; 35] = [
    "auth_url",
    "system_scope",
    "domain_id",
    "domain_name",
    "project_id",
    "project_name",
    "project_domain_id",
    "project_domain_name",
    "trust_id",
    "default_domain_id",
    "default_domain_name",
    "default_domain",
    "user_id",
    "username",
    "user_name",
    "user_domain_id",
    "user_domain_name",
    "password",
    "passcode",
    "token",
    "application_credential_id",
    "application_credential_name",
    "application_credential_secret",
    "identity_provider",
    "protocol",
    "access_token",
    "client_id",
    "client_secret",
    "openid_scope",
    "access_token_endpoint",
    "discovery_endpoint",
    "access_token_type",
    "redirect_host",
    "redirect_port",
    "login_timeout",
];

/// What a named cloud may get from the variables where it has none.
const FILLED: [&str; 10] = [
    "password",
    "passcode",
    "token",
    "access_token",
    "client_secret",
    "application_credential_secret",
    "cacert",
    "cert",
    "key",
    "region_name",
];

impl Sources {
    /// The variable, if it says anything.
    fn env(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The variables as a cloud: `OS_AUTH_URL` is `auth_url`.
    fn env_cloud(&self) -> Option<Map<String, Value>> {
        let ignored = |name: &str| ["OS_TEST", "OS_STD", "OS_LOG"].iter().any(|start| name.starts_with(start));
        let counted = || self.env.iter().filter(|(name, value)| !ignored(name) && !value.is_empty());
        counted().any(|(name, _)| !SELECTORS.contains(&name.as_str())).then(|| {
            let pair = |(name, value): (&String, &String)| {
                (name.strip_prefix("OS_").unwrap_or(name).to_lowercase(), Value::String(value.clone()))
            };
            counted().map(pair).collect()
        })
    }

    /// The cloud of that name; without one that of `OS_CLOUD`, the variables', or the only one there is.
    pub fn merge(&self, wanted: Option<&str>) -> Result<Merged> {
        let mut clouds = self.clouds()?;
        let env_key = self.env("OS_CLOUD_NAME").unwrap_or("envvars");
        if clouds.contains_key(env_key) {
            let message =
                format!("clouds.yaml has a cloud \"{}\", which is the name of the variables' own", escape(env_key));
            return Err(invalid("cloud", &message).with_hint("rename it, or set OS_CLOUD_NAME to another name"));
        }
        let env = self.env_cloud();
        let names: Vec<String> = clouds.keys().cloned().collect();
        let env_is_one = env.as_ref().is_some_and(|env| env.contains_key("auth_url") || env.contains_key("profile"));
        let chosen = wanted.or_else(|| self.env("OS_CLOUD")).map(str::to_owned);
        let name = match (chosen, &names[..]) {
            (Some(name), _) => name,
            (None, _) if env_is_one => env_key.to_owned(),
            (None, [only]) => only.clone(),
            (None, _) => {
                let message = format!("no cloud was named; {}", there(&names));
                return Err(invalid("cloud", &message).with_hint(Hint::NameCloud));
            }
        };
        let from_env = name == env_key && env.is_some();
        if let (true, Some(env)) = (from_env, &env) {
            clouds.insert(env_key.to_owned(), Value::Object(env.clone()));
        }
        let own = match clouds.remove(&name) {
            Some(Value::Object(own)) => own,
            Some(_) => {
                let message = format!("the cloud \"{}\" has nothing in it", escape(&name));
                return Err(invalid("cloud", &message).with_hint("indent what belongs to it under its name"));
            }
            None => {
                let message = format!("no cloud is named \"{}\"; {}", escape(&name), there(&names));
                return Err(invalid("cloud", &message).with_hint(
                    "clouds.yaml is looked for here, in ~/.config/openstack, /etc/openstack, and where OS_CLIENT_CONFIG_FILE says",
                ));
            }
        };
        let mut notes = Vec::new();
        let mut config = self.finish(&own, env_key, &mut notes)?;
        self.say_what_is_ignored(&own, from_env, &mut config, &mut notes);
        if !from_env && let Some(env) = &env {
            fill(&mut config, env);
        }
        let name = (!from_env).then_some(name);
        Ok(Merged { name, config, notes })
    }

    /// The clouds of both files.
    fn clouds(&self) -> Result<Map<String, Value>> {
        let of = |file: &Value, name: &str| match file {
            Value::Null => Ok(Map::new()),
            Value::Object(file) => match file.get("clouds") {
                None | Some(Value::Null) => Ok(Map::new()),
                Some(Value::Object(clouds)) => Ok(clouds.clone()),
                Some(_) => Err(invalid("clouds.yaml", &format!("\"clouds\" of {name} is no map of clouds"))),
            },
            _ => Err(invalid("clouds.yaml", &format!("{name} is no map: \"clouds:\" is wanted in it"))),
        };
        let mut clouds = of(&self.clouds, "clouds.yaml")?;
        merge_deep(&mut clouds, of(&self.secure, "secure.yaml")?);
        Ok(clouds)
    }

    /// Defaults, the profile, the cloud's own, its region, and the old names for all that.
    fn finish(&self, own: &Map<String, Value>, env_key: &str, notes: &mut Vec<String>) -> Result<Map<String, Value>> {
        let mut config = Map::new();
        config.insert("interface".into(), "public".into());
        config.insert("auth_type".into(), "password".into());
        let profile = own.get("profile").or_else(|| own.get("cloud")).and_then(text).filter(|name| name != env_key);
        if let Some(name) = profile.filter(|name| !name.is_empty()) {
            match self.profile(&name) {
                Ok(profile) => update(&mut config, profile),
                // Whose own entry says where to log in needs none.
                Err(e) if has_address(own) => {
                    notes.push(format!("{}: the cloud's own entry alone counts", e.message()))
                }
                Err(e) => return Err(e),
            }
        }
        let known = regions(own).or_else(|| regions(&config)).unwrap_or_default();
        config.entry("auth").or_insert_with(|| Value::Object(Map::new()));
        update(&mut config, own.clone());
        config.remove("cloud");
        config.remove("regions");
        let wanted = self.env("OS_REGION_NAME");
        let region = known.iter().find(|(name, _)| Some(name.as_str()) == wanted).or_else(|| known.first());
        if let (Some(wanted), Some((region, _))) = (wanted.filter(|w| !known.iter().any(|(n, _)| n == w)), region) {
            notes.push(format!(
                "OS_REGION_NAME={} is not obeyed: the cloud's own region is {}",
                escape(wanted),
                escape(region)
            ));
        }
        config.remove("region_name");
        if let Some((name, values)) = region {
            update(&mut config, values.clone());
            config.insert("region_name".into(), name.clone().into());
        }
        rename(&mut config);
        let mut config = normal_keys(config);
        collect_auth(&mut config);
        expand(&mut config);
        Ok(config)
    }

    fn profile(&self, name: &str) -> Result<Map<String, Value>> {
        let public = self.vendor.get("public-clouds").and_then(|clouds| clouds.get(name));
        let found = public.cloned().or_else(|| vendors::profile(name));
        let Some(Value::Object(mut profile)) = found else {
            let message = format!("no vendor's profile is named \"{}\"", escape(name));
            return Err(invalid("profile", &message)
                .with_hint("it may be in clouds-public.yaml; or put auth_url and regions into the cloud's own entry"));
        };
        // One in clouds-public.yaml that names another is taken as it is.
        let further = profile.remove("profile").filter(|_| public.is_none());
        if let Some(address) = further.as_ref().and_then(text) {
            let message = format!("the profile {} has to be asked for at {}", escape(name), escape(&address));
            return Err(invalid("profile", &message)
                .with_hint("put auth_url and region_name into the cloud's own entry, and leave profile out"));
        }
        let message = profile.remove("message").as_ref().and_then(text).unwrap_or_default();
        if profile.remove("status").as_ref().and_then(text).as_deref() == Some("shutdown") {
            let message = format!("the profile {} is of a cloud that is no more: {}", escape(name), escape(&message));
            return Err(invalid("profile", &message));
        }
        Ok(profile)
    }

    /// The check of certificates is waived by the cloud's own entry alone.
    fn say_what_is_ignored(
        &self,
        own: &Map<String, Value>,
        from_env: bool,
        config: &mut Map<String, Value>,
        notes: &mut Vec<String>,
    ) {
        let is_true = |value: &Value| {
            value.as_bool().unwrap_or_else(|| text(value).is_some_and(|text| text.eq_ignore_ascii_case("true")))
        };
        let waived = |from: &Map<String, Value>| {
            from.get("verify") == Some(&Value::Bool(false)) || from.get("insecure").is_some_and(is_true)
        };
        let own_waives = !from_env && waived(own);
        if !own_waives && waived(config) {
            notes.push("verify: false and insecure: true are not obeyed from a profile, a region or a variable".into());
        }
        for name in ["OS_INSECURE", "OS_VERIFY"] {
            if let Some(value) = self.env(name) {
                let says = if name == "OS_VERIFY" { "false" } else { "true" };
                if value.eq_ignore_ascii_case(says) || value == "1" {
                    notes.push(format!(
                        "{name}={} is not obeyed: only verify: false in the cloud's own entry of clouds.yaml is",
                        escape(value)
                    ));
                }
            }
        }
        config.remove("insecure");
        let path = config.remove("verify").filter(|_| !from_env).and_then(|value| match value {
            Value::String(path) if !path.is_empty() => Some(path),
            _ => None,
        });
        config.insert("verify".into(), Value::Bool(!own_waives));
        // A path in place of a truth value names the authority.
        let named = config.get("cacert").and_then(text).is_some_and(|cacert| !cacert.is_empty());
        if let (Some(path), false) = (path, named) {
            config.insert("cacert".into(), Value::String(path));
        }
    }
}

/// Whether it says itself where Keystone is.
fn has_address(own: &Map<String, Value>) -> bool {
    let auth = own.get("auth").and_then(Value::as_object);
    let has = |map: &Map<String, Value>| ["auth_url", "auth-url"].iter().any(|key| map.get(*key).is_some());
    has(own) || auth.is_some_and(has)
}

fn there(names: &[String]) -> String {
    if names.is_empty() {
        "there is no clouds.yaml with clouds in it".to_owned()
    } else {
        choice(&names.iter().map(|n| escape(n)).collect::<Vec<_>>())
    }
}

/// Secrets that people keep out of the file.
fn fill(config: &mut Map<String, Value>, env: &Map<String, Value>) {
    for key in FILLED {
        let Some(value) = env.get(key) else { continue };
        let in_auth = AUTH.contains(&key);
        let into = if in_auth { config.get_mut("auth").and_then(Value::as_object_mut) } else { Some(&mut *config) };
        if let Some(into) = into {
            let absent = into.get(key).is_none_or(|value| text(value).is_none_or(|text| text.is_empty()));
            if absent {
                into.insert(key.to_owned(), value.clone());
            }
        }
    }
}

/// `_util.merge_clouds`: maps are merged, all else replaced.
fn merge_deep(into: &mut Map<String, Value>, from: Map<String, Value>) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => merge_deep(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// `_auth_update`: what is new replaces what was, but `auth` is merged.
fn update(into: &mut Map<String, Value>, from: Map<String, Value>) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) if key == "auth" => old.extend(new),
            (_, Value::Null) if key == "auth" => {}
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// `_get_known_regions`: each with values of its own; `None` where nothing is said of regions.
fn regions(config: &Map<String, Value>) -> Option<Vec<(String, Map<String, Value>)>> {
    let list = match (config.get("regions"), config.get("region_name").or_else(|| config.get("region-name"))) {
        (Some(Value::Array(list)), _) | (_, Some(Value::Array(list))) => list.clone(),
        (_, Some(names)) => text(names)?.split(',').map(Value::from).collect(),
        _ => return None,
    };
    let of = |region: Value| match region {
        Value::Object(region) => {
            let values = region.get("values").and_then(Value::as_object).cloned().unwrap_or_default();
            Some((text(region.get("name")?)?, values))
        }
        name => Some((text(&name)?, Map::new())),
    };
    let found: Vec<_> = list.into_iter().filter_map(of).filter(|(name, _)| !name.is_empty()).collect();
    (!found.is_empty()).then_some(found)
}

/// The old names: `_fix_backwards_auth_plugin`, `_fix_backwards_auth`, `_fix_backwards_interface`, `_handle_domain_id`.
fn rename(config: &mut Map<String, Value>) {
    // The older name of `auth_type`, which always has a value and wins.
    config.remove("auth_plugin");
    let mut auth = match config.remove("auth") {
        Some(Value::Object(auth)) => auth,
        _ => Map::new(),
    };
    let names: [(&str, &[&str]); 10] = [
        ("domain_id", &["domain_id", "domain-id"]),
        ("domain_name", &["domain_name", "domain-name"]),
        ("user_domain_id", &["user_domain_id", "user-domain-id"]),
        ("user_domain_name", &["user_domain_name", "user-domain-name"]),
        ("project_domain_id", &["project_domain_id", "project-domain-id"]),
        ("project_domain_name", &["project_domain_name", "project-domain-name"]),
        ("token", &["auth-token", "auth_token", "token"]),
        ("passcode", &["passcode"]),
        ("project_id", &["tenant_id", "tenant-id", "project_id", "project-id"]),
        ("project_name", &["tenant_name", "tenant-name", "project_name", "project-name"]),
    ];
    for (name, known) in names {
        let mut found = None;
        for key in known {
            // What stands outside of auth wins.
            for value in [auth.remove(*key), config.remove(*key)].into_iter().flatten() {
                found = text(&value);
            }
        }
        if let Some(value) = found.filter(|value| !value.is_empty()) {
            auth.insert(name.into(), value.into());
        }
    }
    let scoped = auth.contains_key("project_id") || auth.contains_key("project_name");
    if scoped {
        for kind in ["id", "name"] {
            let Some(domain) = auth.remove(&format!("domain_{kind}")) else { continue };
            for whose in ["user", "project"] {
                auth.entry(format!("{whose}_domain_{kind}")).or_insert_with(|| domain.clone());
            }
        }
    }
    config.insert("auth".into(), Value::Object(auth));
    let old: Vec<String> = config.keys().filter(|key| key.ends_with("endpoint_type")).cloned().collect();
    for key in old {
        if let Some(value) = config.remove(&key) {
            config.insert(key.replace("endpoint_type", "interface"), value);
        }
    }
}

/// `_util.normalize_keys`.
fn normal_keys(config: Map<String, Value>) -> Map<String, Value> {
    let value = |value| match value {
        Value::Object(map) => Value::Object(normal_keys(map)),
        other => other,
    };
    config.into_iter().map(|(key, inner)| (key.replace('-', "_"), value(inner))).collect()
}

/// `_validate_auth`: what is said of the login moves into `auth`, where it wins; what is empty goes.
fn collect_auth(config: &mut Map<String, Value>) {
    let mut auth = match config.remove("auth") {
        Some(Value::Object(auth)) => auth,
        _ => Map::new(),
    };
    for key in AUTH {
        let outer = config.remove(key);
        let usable = |value: &Value| text(value).is_some_and(|text| !text.is_empty());
        if !auth.get(key).is_some_and(usable)
            && let Some(value) = outer.filter(usable)
        {
            auth.insert(key.into(), value);
        }
    }
    for (old, new) in [("user_name", "username"), ("openid_scope", "scope")] {
        if let Some(value) = auth.remove(old) {
            auth.entry(new).or_insert(value);
        }
    }
    auth.retain(|_, value| text(value).is_some_and(|text| !text.is_empty()));
    config.insert("auth".into(), Value::Object(auth));
}

/// `str.format` with the cloud's own values: `https://{region_name}.example.org`.
fn expand(config: &mut Map<String, Value>) {
    let values: BTreeMap<String, String> =
        config.iter().filter_map(|(key, value)| Some((key.clone(), text(value)?))).collect();
    let expanded =
        |value: &str| values.iter().fold(value.to_owned(), |value, (key, of)| value.replace(&format!("{{{key}}}"), of));
    for (key, value) in config.iter_mut() {
        if let (true, Value::String(address)) =
            (key.ends_with("endpoint_override") || key.ends_with("_endpoint"), value)
        {
            *address = expanded(address);
        }
    }
    if let Some(Value::String(address)) = config.get_mut("auth").and_then(|auth| auth.get_mut("auth_url")) {
        *address = expanded(address);
    }
}
