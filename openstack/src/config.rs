//! Which cloud, and how to log in: clouds.yaml, secure.yaml and the `OS_*` variables, as the `openstack` program reads
//! them.

use std::path::PathBuf;

use openstack_sdk::config::{Auth, CloudConfig, ConfigFile, ConfigFileBuilderError};
use openstack_sdk::config::{find_clouds_file, find_config_files_specified_in_env, find_secure_file, find_vendor_file};

use unluks::error::{Error, Hint, Result, escape};

/// The name and the configuration of the cloud that `--cloud`, `OS_CLOUD` or the other variables name.
pub(super) fn read(wanted: Option<&str>) -> Result<(Option<String>, CloudConfig)> {
    let env = CloudConfig::from_env().map_err(|e| invalid("OS_*", &e.to_string()))?;
    let name = wanted.map(str::to_owned).or_else(|| std::env::var("OS_CLOUD").ok().filter(|name| !name.is_empty()));
    let has_address = env.auth.as_ref().is_some_and(|auth| auth.auth_url.is_some());
    let (name, mut config) = match name {
        None if has_address => (None, without_waiver(env)),
        name => {
            let (name, mut config) = from_files(name)?;
            add_secrets(&mut config, &env);
            (Some(name), config)
        }
    };
    add_domains(&mut config);
    if config.auth.as_ref().is_some_and(|auth| auth.auth_url.is_some()) {
        Ok((name, config))
    } else {
        Err(invalid("auth_url", "the cloud has no address of Keystone").with_hint("add auth.auth_url to it"))
    }
}

/// Certificates are left unchecked only where the user's own clouds.yaml says so, not by a variable.
fn without_waiver(mut config: CloudConfig) -> CloudConfig {
    config.verify = Some(true);
    config
}

fn from_files(name: Option<String>) -> Result<(String, CloudConfig)> {
    let files = files()?;
    let clouds = files.clouds.unwrap_or_default();
    let mut names: Vec<_> = clouds.keys().cloned().collect();
    names.sort();
    let there = || {
        if names.is_empty() {
            "there is no clouds.yaml with clouds in it".to_owned()
        } else {
            format!("there are {}", names.iter().map(|n| escape(n)).collect::<Vec<_>>().join(", "))
        }
    };
    let name = match (name, &names[..]) {
        (Some(name), _) => name,
        (None, [only]) => only.clone(),
        (None, _) => {
            return Err(invalid("cloud", &format!("no cloud was named; {}", there())).with_hint(Hint::NameCloud));
        }
    };
    let missing = || {
        invalid("cloud", &format!("no cloud is named \"{}\"; {}", escape(&name), there()))
            .with_hint("clouds.yaml is looked for here, in ~/.config/openstack, /etc/openstack, and where OS_CLIENT_CONFIG_FILE says")
    };
    let own = clouds.get(&name).ok_or_else(missing)?;
    let mut config = own.clone();
    if let Some(profile) = &own.profile {
        let public = files.public_clouds.unwrap_or_default();
        let profile = public
            .get(profile)
            .ok_or_else(|| invalid("profile", &format!("clouds-public.yaml has no profile \"{}\"", escape(profile))))?;
        config.update(profile);
    }
    // A vendor's profile cannot switch the check off.
    config.verify = Some(own.verify.unwrap_or(true));
    config.name = Some(name.clone());
    Ok((name, config))
}

/// The files in the order of the `openstack` program: the first clouds.yaml that is found, and secure.yaml over it.
fn files() -> Result<ConfigFile> {
    let named = |variable| std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from);
    let listed: Vec<PathBuf> = find_config_files_specified_in_env().into_iter().collect();
    let clouds = match (named("OS_CLIENT_CONFIG_FILE"), listed.is_empty()) {
        (Some(path), _) => vec![path],
        (None, false) => listed,
        (None, true) => find_clouds_file().into_iter().collect(),
    };
    let secure = named("OS_CLIENT_SECURE_FILE").or_else(find_secure_file);
    let mut builder = ConfigFile::builder();
    for path in find_vendor_file().into_iter().chain(clouds).chain(secure) {
        builder = builder.add_source(&path).map_err(wrong_file)?;
    }
    builder.build().map_err(wrong_file)
}

fn wrong_file(e: ConfigFileBuilderError) -> Error {
    // The parser's own words may quote the file, in which passwords are.
    let path = match &e {
        ConfigFileBuilderError::FileParse { path, .. } | ConfigFileBuilderError::ConfigDeserialize { path, .. } => {
            escape(&path.display().to_string())
        }
        _ => "the cloud configuration".into(),
    };
    invalid("clouds.yaml", &format!("{path} cannot be read, or is no YAML of the right shape"))
}

/// What people keep out of the file: secrets, and where the machine has its certificates.
fn add_secrets(config: &mut CloudConfig, env: &CloudConfig) {
    let auth = config.auth.get_or_insert_with(Auth::default);
    if let Some(given) = &env.auth {
        auth.password = auth.password.take().or_else(|| given.password.clone());
        auth.passcode = auth.passcode.take().or_else(|| given.passcode.clone());
        auth.token = auth.token.take().or_else(|| given.token.clone());
        auth.access_token = auth.access_token.take().or_else(|| given.access_token.clone());
        let secret = &mut auth.application_credential_secret;
        *secret = secret.take().or_else(|| given.application_credential_secret.clone());
    }
    config.cacert = config.cacert.take().or_else(|| env.cacert.clone());
    config.region_name = config.region_name.take().or_else(|| env.region_name.clone());
}

/// A name without a domain is one of the domain `default`, as the `openstack` program has it.
fn add_domains(config: &mut CloudConfig) {
    let Some(auth) = &mut config.auth else { return };
    if auth.username.is_some() && auth.user_domain_id.is_none() && auth.user_domain_name.is_none() {
        auth.user_domain_id = Some("default".into());
    }
    let by_name = auth.project_name.is_some() && auth.project_id.is_none();
    if by_name && auth.project_domain_id.is_none() && auth.project_domain_name.is_none() {
        auth.project_domain_id = Some("default".into());
    }
}

fn invalid(rule: &str, message: &str) -> Error {
    Error::invalid(message.to_owned()).with_rule(format!("cloud.{rule}"))
}
