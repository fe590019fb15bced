//! Logging in to Keystone: `POST /v3/auth/tokens` at `auth_url`, and nowhere else.
//!
//! ```text
//!  password, token, application credential, TOTP, several of them ─► POST auth/tokens ─► token, project, catalogue
//!  OIDC, a browser ─► the SDK's plugins ─► a token ─► for the project: POST auth/tokens; else GET auth/tokens
//! ```
//!
//! `openstack_sdk`'s session is not taken, but its plugins for federated logins are. The session logs in at the address
//! that discovery names, which behind TLS is the inner one; looks for Keystone's address by `interface`, before there is a
//! catalogue; follows redirects with the password; has no client certificates; and keeps a folder in the user's home.
//! Scheme, host and port of `auth_url` are what the user trusts: no answer changes them.
//!
//! Source: the Identity API v3 (`/v3/auth/tokens`), and keystoneauth1's `identity/v3` for what is sent.

use openstack_sdk_auth_core::{Auth, AuthError, OpenStackAuthType};
use openstack_sdk_auth_oidcaccesstoken::OidcAccessTokenAuthenticator;
use openstack_sdk_auth_oidcclientcredentials::OidcClientCredentialsAuthenticator;
use openstack_sdk_auth_websso::WebSSOAuthenticator;
use reqwest::{Response, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};

use super::catalog::{Catalog, is_version};
use super::config::{Settings, quoted};
use super::failure::{Failure, retry_after, transport};
use unluks::error::{Error, ErrorKind, Result, escape};
use unluks::limits::CLOUD_ANSWER_MAX;

/// A login that Keystone took.
pub(super) struct Session {
    /// The token.
    pub token: SecretString,
    /// The id of the project that it is for.
    pub project: Option<String>,
    /// The services.
    pub catalog: Catalog,
}

/// Keystone's address with the version of its API, and a slash at the end.
pub(super) fn address(settings: &Settings) -> Result<Url> {
    let text = &settings.auth_url;
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let mut url = url.ok_or_else(|| {
        Error::invalid(format!("found {}; an http or https address is wanted", quoted(text)))
            .with_rule("cloud.auth_url")
    })?;
    url.set_query(None);
    url.set_fragment(None);
    let mut path: Vec<String> = url
        .path_segments()
        .map_or_else(Vec::new, |all| all.filter(|part| !part.is_empty()).map(str::to_owned).collect());
    path.pop_if(|last| is_version(last));
    path.extend(["v3".into(), String::new()]);
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.clear().extend(path);
    }
    Ok(url)
}

/// Logs in once.
pub(super) async fn login(http: &reqwest::Client, settings: &Settings) -> std::result::Result<Session, Failure> {
    let at = address(settings).map_err(Failure::Final)?;
    let scope = scope(settings).map_err(Failure::Final)?;
    let kind = settings.auth_type.as_str();
    let plugin: Option<&dyn OpenStackAuthType> = match kind {
        "v3oidcaccesstoken" => Some(&OidcAccessTokenAuthenticator),
        "v3oidcclientcredentials" => Some(&OidcClientCredentialsAuthenticator),
        "v3websso" => Some(&WebSSOAuthenticator),
        _ => None,
    };
    if let Some(plugin) = plugin {
        let values = settings.auth.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let hints = None;
        let auth = plugin.auth(http, &at, &values, None, hints).await.map_err(plugin_failure)?;
        let Auth::AuthToken(auth) = auth else { return Err(refused(401, "the login gave no token")) };
        let token = auth.token.clone();
        return match scope {
            None => whose(http, &at, token).await,
            Some(scope) => {
                let identity = json!({"methods": ["token"], "token": {"id": token.expose_secret()}});
                post(http, &at, identity, Some(scope)).await
            }
        };
    }
    let methods: Vec<&str> = match kind {
        "password" | "v3password" => vec!["password"],
        "token" | "v3token" => vec!["token"],
        "v3totp" => vec!["totp"],
        "v3multifactor" if !settings.auth_methods.is_empty() => {
            factors(&settings.auth_methods).map_err(Failure::Final)?
        }
        "v3applicationcredential" | "v3application_credential" | "application_credential" | "applicationcredential" => {
            vec!["application_credential"]
        }
        other => {
            let known = "password, token, v3applicationcredential, v3totp, v3multifactor with auth_methods, v3oidcaccesstoken, v3oidcclientcredentials, v3websso";
            let message = format!("the login {} is not known here; {known} are", quoted(other));
            return Err(Failure::Final(Error::invalid(message).with_rule("cloud.auth_type")));
        }
    };
    let mut identity = Map::new();
    for method in &methods {
        identity.insert((*method).to_owned(), credentials(method, settings).map_err(Failure::Final)?);
    }
    identity.insert("methods".into(), json!(methods));
    // A credential has its project, and a scope beside it is refused.
    let scope = scope.filter(|_| methods != ["application_credential"]);
    post(http, &at, Value::Object(identity), scope).await
}

/// The methods of several factors, by the names of their plugins.
fn factors(names: &[String]) -> Result<Vec<&'static str>> {
    let known = |name: &String| match name.trim() {
        "v3password" | "password" => Ok("password"),
        "v3totp" | "totp" => Ok("totp"),
        "v3token" | "token" => Ok("token"),
        "v3applicationcredential" | "application_credential" => Ok("application_credential"),
        other => {
            let message = format!("the factor {} of v3multifactor is not known here", quoted(other));
            Err(Error::invalid(message)
                .with_rule("cloud.auth_methods")
                .with_hint("v3password, v3totp, v3token and v3applicationcredential are"))
        }
    };
    names.iter().map(known).collect()
}

/// What proves who it is.
fn credentials(method: &str, settings: &Settings) -> Result<Value> {
    let get = |key: &str| settings.auth.get(key).map(|value| value.expose_secret().to_owned());
    let want = |key: &str| {
        get(key).ok_or_else(|| {
            let message = format!("the password, or another secret, is missing: {}", key.replace('_', " "));
            Error::invalid(message)
                .with_rule("cloud.login")
                .with_hint(format!("put it into clouds.yaml or secure.yaml, or set OS_{}", key.to_uppercase()))
        })
    };
    Ok(match method {
        "token" => json!({"id": want("token")?}),
        "application_credential" => {
            let secret = want("application_credential_secret")?;
            match get("application_credential_id") {
                Some(id) => json!({"id": id, "secret": secret}),
                None => {
                    json!({"name": want("application_credential_name")?, "secret": secret, "user": user(settings)?})
                }
            }
        }
        _ => {
            let key = if method == "totp" { "passcode" } else { "password" };
            let mut user = user(settings)?;
            user[key] = want(key)?.into();
            json!({"user": user})
        }
    })
}

fn user(settings: &Settings) -> Result<Value> {
    let get = |key: &str| settings.auth.get(key).map(|value| value.expose_secret().to_owned());
    match (get("user_id"), get("username")) {
        (Some(id), _) => Ok(json!({"id": id})),
        (None, Some(name)) => Ok(json!({"name": name, "domain": domain(settings, "user")})),
        (None, None) => {
            Err(Error::invalid("the cloud names no user").with_rule("cloud.login").with_hint("add auth.username"))
        }
    }
}

/// The domain of a name. Without one it is `default`, as the `openstack` program has it.
fn domain(settings: &Settings, whose: &str) -> Value {
    let get = |key: String| settings.auth.get(&key).map(|value| value.expose_secret().to_owned());
    if let Some(id) = get(format!("{whose}_domain_id")) {
        json!({"id": id})
    } else if let Some(name) = get(format!("{whose}_domain_name")) {
        json!({"name": name})
    } else if let Some(id) = get("default_domain_id".into()).or_else(|| get("default_domain".into())) {
        json!({"id": id})
    } else if let Some(name) = get("default_domain_name".into()) {
        json!({"name": name})
    } else {
        json!({"id": "default"})
    }
}

/// What the token is to be good for. Where that is several things, nothing is chosen among them.
fn scope(settings: &Settings) -> Result<Option<Value>> {
    let get = |key: &str| settings.auth.get(key).map(|value| value.expose_secret().to_owned());
    let project = match (get("project_id"), get("project_name")) {
        (Some(id), _) => Some(json!({"project": {"id": id}})),
        (None, Some(name)) => Some(json!({"project": {"name": name, "domain": domain(settings, "project")}})),
        (None, None) => None,
    };
    let of_domain = match (get("domain_id"), get("domain_name")) {
        (Some(id), _) => Some(json!({"domain": {"id": id}})),
        (None, Some(name)) => Some(json!({"domain": {"name": name}})),
        (None, None) => None,
    };
    let trust = get("trust_id").map(|id| json!({"OS-TRUST:trust": {"id": id}}));
    let invalid = |message: &str| Error::invalid(message).with_rule("cloud.scope");
    let system = match get("system_scope").as_deref() {
        None => None,
        Some("all") => Some(json!({"system": {"all": true}})),
        Some(_) => return Err(invalid("system_scope is something else than all").with_hint("leave it out")),
    };
    let mut all = [project, trust, of_domain, system].into_iter().flatten();
    match (all.next(), all.next()) {
        (_, Some(_)) => Err(invalid("the login is for more than one of project, domain, trust and system")
            .with_hint("leave all out but project_name or project_id, or trust_id")),
        (one, None) => Ok(one),
    }
}

async fn post(
    http: &reqwest::Client,
    at: &Url,
    identity: Value,
    scope: Option<Value>,
) -> std::result::Result<Session, Failure> {
    let mut body = json!({"auth": {"identity": identity}});
    if let Some(scope) = scope {
        body["auth"]["scope"] = scope;
    }
    let request =
        http.post(tokens(at)?).header("content-type", "application/json").header("accept", "application/json");
    let response = request.body(body.to_string()).send().await.map_err(|e| unreachable(&e))?;
    let subject = response.headers().get("x-subject-token").and_then(|token| token.to_str().ok()).map(str::to_owned);
    session(response, subject.map(SecretString::from), at).await
}

/// What a token is for, where it came from somebody else.
async fn whose(http: &reqwest::Client, at: &Url, token: SecretString) -> std::result::Result<Session, Failure> {
    let request = http.get(tokens(at)?).header("accept", "application/json");
    let request =
        request.header("x-auth-token", token.expose_secret()).header("x-subject-token", token.expose_secret());
    let response = request.send().await.map_err(|e| unreachable(&e))?;
    session(response, Some(token), at).await
}

fn tokens(at: &Url) -> std::result::Result<Url, Failure> {
    at.join("auth/tokens").map_err(|e| Failure::Final(Error::invalid(e.to_string()).with_rule("cloud.auth_url")))
}

fn unreachable(e: &reqwest::Error) -> Failure {
    let hint = "is auth_url right, and is there a way to it from here?";
    match transport("Keystone", e) {
        Failure::Passing(e, asked) => Failure::Passing(e.with_hint(hint), asked),
        last => last,
    }
}

async fn session(
    mut response: Response,
    token: Option<SecretString>,
    at: &Url,
) -> std::result::Result<Session, Failure> {
    let status = response.status();
    if status.is_redirection()
        && let Some(to) = response.headers().get("location").and_then(|to| to.to_str().ok())
    {
        // Whom a redirect names would get the password.
        let message = format!("Keystone answered {}: it is elsewhere, at {}", status.as_u16(), escape(to));
        return Err(Failure::Final(
            Error::invalid(message)
                .with_rule("cloud.auth_url")
                .with_hint("if that is to be trusted, make it the auth_url"),
        ));
    }
    let asked = retry_after(response.headers());
    let receipt = response.headers().contains_key("openstack-auth-receipt");
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| unreachable(&e))? {
        if chunk.len() > CLOUD_ANSWER_MAX - body.len() {
            let message = format!("Keystone's answer has more than {CLOUD_ANSWER_MAX} bytes");
            return Err(Failure::Final(Error::limit("cloud.answer", message)));
        }
        body.extend_from_slice(&chunk);
    }
    let json: Option<Value> = serde_json::from_slice(&body).ok();
    let no_keystone = || {
        let what = if json.is_some() { "something that is no login" } else { "no JSON" };
        let message =
            format!("there is no Keystone at {}: it answered {} and {what}", escape(at.as_str()), status.as_u16());
        Error::invalid(message)
            .with_rule("cloud.auth_url")
            .with_hint("auth_url is Keystone's address, such as https://HOST:5000/v3")
    };
    if status.is_success() {
        let info = json.as_ref().and_then(|json| json.get("token"));
        let (Some(info), Some(token)) = (info, token) else { return Err(Failure::Final(no_keystone())) };
        let project = info.pointer("/project/id").and_then(Value::as_str).map(str::to_owned);
        let catalog = Catalog::of(info.get("catalog").unwrap_or(&Value::Null));
        return Ok(Session { token, project, catalog });
    }
    let words = json.as_ref().and_then(|json| json.pointer("/error/message")).and_then(Value::as_str);
    if receipt {
        let e = Error::invalid("Keystone wants a second factor of this user").with_rule("cloud.login");
        return Err(Failure::Final(e.with_hint("log in with an application credential in place of the password")));
    }
    match (words, status) {
        (Some(words), _) => Err(match refused(status.as_u16(), words) {
            Failure::Passing(e, _) => Failure::Passing(e, asked),
            last => last,
        }),
        (None, StatusCode::TOO_MANY_REQUESTS) => Err(Failure::Passing(no_keystone(), asked)),
        (None, status) if status.is_server_error() => {
            let message = format!("Keystone, or what stands before it, answered {}", status.as_u16());
            Err(Failure::Passing(Error::new(ErrorKind::Io, message).with_rule("cloud.login"), asked))
        }
        (None, _) => Err(Failure::Final(no_keystone())),
    }
}

/// What Keystone says no with.
fn refused(code: u16, words: &str) -> Failure {
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    let message = format!("Keystone answered {code}: {}", escape(words.trim_end_matches('.')));
    if code == 429 || code >= 500 {
        Failure::Passing(Error::new(ErrorKind::Io, message).with_rule("cloud.login"), None)
    } else {
        let hint = "are name, password and project right?";
        Failure::Final(Error::invalid(message).with_rule("cloud.login").with_hint(hint))
    }
}

fn plugin_failure(e: AuthError) -> Failure {
    match e {
        AuthError::Identity(e) => match e.code {
            code if code <= u32::from(u16::MAX) => refused(u16::try_from(code).unwrap_or(400), &e.message),
            _ => refused(400, &e.message),
        },
        AuthError::UnknownAuth { code, message } => refused(code, &message.unwrap_or_default()),
        AuthError::Reqwest { source } => unreachable(&source),
        e => {
            let words = e.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
            Failure::Final(Error::invalid(escape(&words)).with_rule("cloud.login"))
        }
    }
}

#[cfg(test)]
mod tests;
