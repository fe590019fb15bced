//! A secret of Barbican: its attributes and its payload.

use std::time::SystemTime;

use serde_json::Value;

use super::answer::{Request, Service};
use super::cloud::{Backoff, Cloud, Failure, passes, retry_after};
use super::image::check_key_id;
use crate::shapes;
use unluks::backup::{SecretInfo, rfc3339};
use unluks::error::{Error, Result, escape};
use unluks::limits::CLOUD_SECRET_MAX;
use unluks::secret::SecretBytes;

/// A secret: its attributes, and its payload as Barbican gives it.
pub struct Secret {
    /// The attributes.
    pub info: SecretInfo,
    /// The payload.
    pub payload: SecretBytes,
}

/// Fetches a secret by its id, or by the address that Barbican calls its reference.
///
/// # Errors
/// [`ErrorKind::InvalidInput`](unluks::ErrorKind::InvalidInput) with the rule `secret.id` where it is gone,
/// `secret.access` where it is not ours, `catalog.key-manager` where the cloud has no Barbican; otherwise as
/// [`Cloud::send`].
pub fn fetch(cloud: &Cloud, id_or_reference: &str) -> Result<Secret> {
    let id = id_or_reference.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    check_key_id("secret.id", id)?;
    let path = format!("secrets/{id}");
    let answer = cloud.send(&Request::get(Service::KeyManager, &path))?;
    let info = match answer.status {
        200 => shapes::secret(&answer.json()?)?,
        status => return Err(refused(id, status).unwrap_or_else(|| answer.error("reading the key's attributes"))),
    };
    check_payload(id, &answer.json()?, &info)?;
    let payload = fetch_payload(cloud, id, &format!("{path}/payload"))?;
    Ok(Secret { info, payload })
}

/// Says why there is no payload, before it is asked for in vain.
fn check_payload(id: &str, answer: &Value, info: &SecretInfo) -> Result<()> {
    let id = escape(id);
    let now = rfc3339(SystemTime::now());
    // Both are UTC, and years have four digits: the texts are in the order of the times.
    if let Some(at) = info.expiration.as_deref().filter(|at| *at < now.trim_end_matches('Z')) {
        let message = format!("the key {id} expired at {}, and Barbican gives it to nobody any more", escape(at));
        return Err(Error::invalid(message).with_rule("secret.expired").with_hint(
            "an administrator of the cloud may still have it in Barbican's database; look for a copy elsewhere",
        ));
    }
    if answer.get("status").and_then(Value::as_str).is_some_and(|status| status != "ACTIVE") {
        let status = answer.get("status").and_then(Value::as_str).unwrap_or_default();
        let message = format!("the key {id} is {} in Barbican, and not ACTIVE", escape(status));
        return Err(Error::invalid(message).with_rule("secret.status"));
    }
    if answer.get("content_types").is_none_or(Value::is_null) {
        let message = format!("the secret {id} has no payload: it was made, and no key was ever stored in it");
        return Err(Error::invalid(message)
            .with_rule("secret.payload")
            .with_hint("whoever made it must store the key"));
    }
    Ok(())
}

/// `application/octet-stream` always works: text, too, comes as the bytes that it was stored as.
fn fetch_payload(cloud: &Cloud, id: &str, path: &str) -> Result<SecretBytes> {
    let headers = &[("accept", "application/octet-stream")];
    let request = Request { headers, ..Request::get(Service::KeyManager, path) };
    let mut backoff = Backoff::new(cloud.options().retries);
    loop {
        let failure = match payload_once(cloud, id, &request) {
            Ok(payload) => return Ok(payload),
            Err(failure) => failure,
        };
        match failure {
            Failure::Final(e) => return Err(e),
            Failure::Passing(e, asked) => backoff.wait(cloud, e, asked)?,
        }
    }
}

fn payload_once(cloud: &Cloud, id: &str, request: &Request<'_>) -> std::result::Result<SecretBytes, Failure> {
    let mut response = cloud.open(request)?;
    let status = response.status();
    if status != reqwest::StatusCode::OK {
        let what = "reading the key";
        let asked = retry_after(response.headers());
        let body = cloud.read_body(Service::KeyManager, &mut response, CLOUD_SECRET_MAX)?;
        let answer = super::Answer { service: Service::KeyManager, status: status.as_u16(), body };
        let e = refused(id, answer.status).unwrap_or_else(|| answer.error(what));
        return Err(if passes(status) { Failure::Passing(e, asked) } else { Failure::Final(e) });
    }
    let mut payload = SecretBytes::zeroed(CLOUD_SECRET_MAX).map_err(Failure::Final)?;
    let mut len = 0;
    loop {
        let chunk = cloud.block(response.chunk()).map_err(Failure::Final)?;
        let chunk = chunk.map_err(|e| match super::cloud::transport("Barbican", &e) {
            Failure::Passing(e, _) | Failure::Final(e) => Failure::Passing(e, None),
        })?;
        let Some(chunk) = chunk else { break };
        let Some(room) = payload.expose_mut().get_mut(len..len + chunk.len()) else {
            let message = format!("the key has more than {CLOUD_SECRET_MAX} bytes");
            return Err(Failure::Final(Error::limit("secret.payload", message)));
        };
        room.copy_from_slice(&chunk);
        len += chunk.len();
    }
    if len == 0 {
        return Err(Failure::Final(Error::corrupt("secret.payload", "Barbican gave a key of 0 bytes")));
    }
    // Pages of its own size, so that no more memory stays locked than the key wants.
    SecretBytes::copy_of(&payload.expose()[..len]).map_err(Failure::Final)
}

/// What a refusal means.
fn refused(id: &str, status: u16) -> Option<Error> {
    let id = escape(id);
    let (rule, message, hint) = match status {
        404 => (
            "secret.id",
            format!("the key {id} is gone: Barbican has no such secret, or it has expired"),
            "without a copy of the key elsewhere the data cannot be decrypted; an image whose policy is on_image_deletion takes its key along when it is deleted",
        ),
        403 => (
            "secret.access",
            format!("the key {id} is not ours to read"),
            "its project's creator role can read it, or share it: openstack acl user add --user USER --operation-type read REFERENCE",
        ),
        _ => return None,
    };
    Some(Error::invalid(message).with_rule(rule).with_hint(hint))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_secret_without_a_key_says_so_at_once() {
        let whole = json!({"secret_ref": "http://x/v1/secrets/k-1", "status": "ACTIVE", "expiration": null,
            "content_types": {"default": "application/octet-stream"}});
        let check = |key: &str, value: Value| {
            let mut answer = whole.clone();
            answer[key] = value;
            check_payload("k-1", &answer, &shapes::secret(&answer).unwrap()).map_err(|e| e.rule().to_owned())
        };
        assert_eq!(check("expiration", json!("2999-01-01T00:00:00")), Ok(()));
        assert_eq!(check("expiration", json!("2020-01-01T00:00:00")), Err("secret.expired".into()));
        assert_eq!(check("content_types", Value::Null), Err("secret.payload".into()));
        assert_eq!(check("status", json!("PENDING")), Err("secret.status".into()));
    }
}
