//! Which cloud, and how to log in: clouds.yaml, secure.yaml, vendors' profiles and the `OS_*` variables, as the
//! `openstack` program reads them.
//!
//! The code is our own, after openstacksdk's `openstack.config`: the Rust SDK's (`openstack_sdk` 0.22) knows no `tenant_*`,
//! merge keys, lists of interfaces or profiles, takes an empty variable for a value, and fails for a whole file where one
//! of its clouds is null. `tests/config.rs` compares what both make of many files and variables.

mod merge;
mod vendors;
mod yaml;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde_json::{Map, Value};
use zeroize::Zeroize;

use merge::{Merged, Sources};
use unluks::error::{Error, Result, escape, shown};

/// How a cloud is logged in to, and which of its services are used.
pub struct Settings {
    /// The name in clouds.yaml; `None` where the variables say it all.
    pub name: Option<String>,
    /// How to log in: `password`, `v3applicationcredential`, ….
    pub auth_type: String,
    /// The factors of `v3multifactor`.
    pub auth_methods: Vec<String>,
    /// What the login is made of, without `auth_url`. The names are keystoneauth's.
    pub auth: BTreeMap<String, SecretString>,
    /// Keystone's address as it was written.
    pub auth_url: String,
    /// The region; `None` takes the first.
    pub region: Option<String>,
    /// The file of authorities to trust.
    pub cacert: Option<String>,
    /// The client's certificate, and its key where that is another file.
    pub cert: Option<(String, Option<String>)>,
    /// Whether certificates are checked.
    pub verify: bool,
    /// What was not obeyed, a line each.
    pub notes: Vec<String>,
    /// All else, for [`Settings::of_service`].
    options: Map<String, Value>,
}

impl Settings {
    /// The settings of `wanted`, else of the cloud that the variables of this process choose.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](unluks::ErrorKind::InvalidInput) with the rule `cloud.clouds.yaml` where a file cannot be
    /// read, with its line; `cloud.cloud`, `cloud.profile` or `cloud.auth_url` where there is no such cloud, or it says too
    /// little.
    pub fn read(wanted: Option<&str>) -> Result<Self> {
        let env =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let env = env.filter(|(name, _)| name.starts_with("OS_")).collect();
        Self::of(wanted, env, &folders())
    }

    /// As [`Settings::read`], with other variables, and other folders to look for files in.
    ///
    /// # Errors
    /// As [`Settings::read`].
    pub fn of(wanted: Option<&str>, env: BTreeMap<String, String>, folders: &[PathBuf]) -> Result<Self> {
        let named = |variable: &str| env.get(variable).filter(|path| !path.is_empty()).map(PathBuf::from);
        let mut sources = Sources {
            clouds: first_of(named("OS_CLIENT_CONFIG_FILE"), folders, "clouds")?,
            secure: first_of(named("OS_CLIENT_SECURE_FILE"), folders, "secure")?,
            vendor: first_of(None, folders, "clouds-public")?,
            env: BTreeMap::new(),
        };
        sources.env = env;
        let merged = sources.merge(wanted);
        for value in [&mut sources.clouds, &mut sources.secure] {
            wipe(value);
        }
        sources.env.values_mut().for_each(Zeroize::zeroize);
        Self::new(merged?)
    }

    fn new(merged: Merged) -> Result<Self> {
        let Merged { name, mut config, notes } = merged;
        let mut texts = |key: &str| config.remove(key).as_ref().and_then(yaml::text).filter(|text| !text.is_empty());
        let (region, cacert, cert, key) = (texts("region_name"), texts("cacert"), texts("cert"), texts("key"));
        let auth_type = texts("auth_type");
        let auth_methods = match config.remove("auth_methods") {
            Some(Value::Array(list)) => list.iter().filter_map(yaml::text).collect(),
            one => one
                .as_ref()
                .and_then(yaml::text)
                .map_or_else(Vec::new, |all| all.split(',').map(str::to_owned).collect()),
        };
        let verify = config.remove("verify") != Some(Value::Bool(false));
        let mut auth = BTreeMap::new();
        let mut auth_url = None;
        if let Some(mut all) = config.remove("auth") {
            for (key, value) in all.as_object().into_iter().flatten() {
                let Some(value) = yaml::text(value) else { continue };
                if key == "auth_url" {
                    auth_url = Some(value);
                } else {
                    auth.insert(key.clone(), SecretString::from(value));
                }
            }
            wipe(&mut all);
        }
        let auth_url = auth_url.ok_or_else(|| {
            invalid("auth_url", "the cloud has no address of Keystone").with_hint("add auth.auth_url to it")
        })?;
        let has = |key: &str| auth.contains_key(key);
        // As the openstack program chooses where nobody did.
        let auth_type = match auth_type.filter(|kind| kind != "password") {
            Some(kind) => kind,
            None if has("password") => "password".to_owned(),
            None if has("application_credential_secret") => "v3applicationcredential".to_owned(),
            None if has("token") => "token".to_owned(),
            None => "password".to_owned(),
        };
        let cert = cert.map(|cert| (cert, key));
        Ok(Self { name, auth_type, auth_methods, auth, auth_url, region, cacert, cert, verify, notes, options: config })
    }

    /// An option of a service, by any of its names, or the option of all services: `interface` is the first of
    /// `volumev3_interface`, `volume_interface`, … or `interface`.
    fn option(&self, names: &[&str], option: &str) -> Option<&Value> {
        let own = |name: &&str| self.options.get(&format!("{}_{option}", name.replace('-', "_")));
        names.iter().filter_map(own).find(|value| !value.is_null())
    }

    /// Which endpoints of a service count, the best first. `names` are its types in catalogues.
    pub fn interfaces(&self, names: &[&str]) -> Vec<String> {
        let value = self.option(names, "interface").or_else(|| self.options.get("interface"));
        let list = match value {
            Some(Value::Array(list)) => list.iter().filter_map(yaml::text).collect(),
            Some(one) => yaml::text(one).into_iter().collect::<Vec<_>>(),
            None => Vec::new(),
        };
        let plain = |name: String| name.strip_suffix("URL").unwrap_or(&name).to_owned();
        let found: Vec<String> = list.into_iter().filter(|name| !name.is_empty()).map(plain).collect();
        if found.is_empty() { vec!["public".into()] } else { found }
    }

    /// The region that a service is used in.
    pub fn region_of(&self, names: &[&str]) -> Option<String> {
        self.option(names, "region_name").and_then(yaml::text).or_else(|| self.region.clone())
    }

    /// The address that was given for a service in place of the catalogue's.
    pub fn endpoint_override(&self, names: &[&str]) -> Option<String> {
        let given = ["endpoint_override", "endpoint"].iter().find_map(|option| self.option(names, option));
        given.and_then(yaml::text).filter(|address| !address.is_empty())
    }
}

/// Where clouds.yaml is looked for: here, in the user's folder, in the machine's.
fn folders() -> Vec<PathBuf> {
    let home = std::env::home_dir().map(|home| home.join(".config"));
    let xdg = std::env::var_os("XDG_CONFIG_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let users = [xdg, home].into_iter().flatten().map(|folder| folder.join("openstack"));
    let machines = ["/etc/xdg/openstack", "/etc/openstack"].into_iter().map(PathBuf::from);
    std::iter::once(PathBuf::from(".")).chain(users).chain(machines).collect()
}

/// The first file that is there; null where there is none.
fn first_of(named: Option<PathBuf>, folders: &[PathBuf], stem: &str) -> Result<Value> {
    let ends = ["yaml", "yml", "json"];
    let looked = folders.iter().flat_map(|folder| ends.iter().map(move |end| folder.join(format!("{stem}.{end}"))));
    for path in named.into_iter().chain(looked) {
        let mut text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied) => {
                continue;
            }
            Err(e) => return Err(invalid("clouds.yaml", &format!("{} cannot be read: {e}", shown(&path)))),
        };
        let parsed = parse(&path, &text);
        text.zeroize();
        return parsed;
    }
    Ok(Value::Null)
}

fn parse(path: &Path, text: &str) -> Result<Value> {
    let wrong = |line: usize, what: &str| {
        invalid("clouds.yaml", &format!("{}, line {line}: {what}", shown(path))).with_hint(
            "its indentation, quotes and brackets: python3 -c 'import yaml, sys; yaml.safe_load(sys.stdin)' tells more",
        )
    };
    if path.extension().is_some_and(|end| end == "json") {
        // The parser's own words may quote the file, in which passwords are.
        serde_json::from_str(text).map_err(|e| wrong(e.line(), "it is no JSON"))
    } else {
        yaml::parse(text).map_err(|e| wrong(e.line, e.what))
    }
}

fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(list) => list.iter_mut().for_each(wipe),
        Value::Object(map) => map.values_mut().for_each(wipe),
        _ => {}
    }
}

fn invalid(rule: &str, message: &str) -> Error {
    Error::invalid(message.to_owned()).with_rule(format!("cloud.{rule}"))
}

/// A name as a message shows it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", escape(name))
}

#[cfg(test)]
mod tests;
