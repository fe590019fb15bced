//! What the services answer, as far as a backup keeps it. An answer is taken as hostile: each field has its type.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use unluks::backup::{Encryption, IMAGE_FIELDS, ImageInfo, SecretInfo, VolumeInfo, check_id};
use unluks::error::{Error, Result, escape};

struct Fields<'a> {
    what: &'static str,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    fn of(what: &'static str, value: &'a Value) -> Result<Self> {
        let map = value.as_object();
        let map = map.ok_or_else(|| Error::corrupt(what, "the service's answer is no JSON object"))?;
        Ok(Self { what, map })
    }

    fn wrong(&self, key: &str, wanted: &str) -> Error {
        let found = self.map.get(key).map_or("nothing".into(), |value| escape(&value.to_string()));
        Error::corrupt(format!("{}.{key}", self.what), format!("the service answered {found}; {wanted} is wanted"))
    }

    fn text(&self, key: &str) -> Result<Option<String>> {
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(self.wrong(key, "text")),
        }
    }

    fn number(&self, key: &str) -> Result<Option<u64>> {
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value.as_u64().map(Some).ok_or_else(|| self.wrong(key, "a number")),
        }
    }

    fn id(&self, key: &str) -> Result<String> {
        let id = self.text(key)?.ok_or_else(|| self.wrong(key, "an id"))?;
        check_id("id", &id).map_err(|_| self.wrong(key, "an id of letters, digits and -"))?;
        Ok(id)
    }
}

/// Takes what Glance answers to `GET /v2/images/{id}`.
///
/// # Errors
/// [`ErrorKind::Corrupt`](unluks::ErrorKind::Corrupt) with the field as the rule, where one has another type.
pub fn image(answer: &Value) -> Result<ImageInfo> {
    let fields = Fields::of("image", answer)?;
    let hex = |key: &str| fields.text(key).map(|hex| hex.map(|hex| hex.to_ascii_lowercase()));
    let tags = match fields.map.get("tags") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(tags)) => tags.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Some(_) => return Err(fields.wrong("tags", "a list")),
    };
    let custom = fields.map.iter().filter(|(key, _)| !IMAGE_FIELDS.contains(&key.as_str()));
    let properties: BTreeMap<_, _> =
        custom.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect();
    Ok(ImageInfo {
        id: fields.id("id")?,
        name: fields.text("name")?,
        disk_format: fields.text("disk_format")?,
        container_format: fields.text("container_format")?,
        size: fields.number("size")?,
        virtual_size: fields.number("virtual_size")?,
        min_disk: fields.number("min_disk")?.unwrap_or(0),
        min_ram: fields.number("min_ram")?.unwrap_or(0),
        checksum: hex("checksum")?,
        os_hash_algo: fields.text("os_hash_algo")?,
        os_hash_value: hex("os_hash_value")?,
        visibility: fields.text("visibility")?,
        protected: fields.map.get("protected").and_then(Value::as_bool).unwrap_or(false),
        owner: fields.text("owner")?,
        created_at: fields.text("created_at")?,
        updated_at: fields.text("updated_at")?,
        tags,
        properties,
    })
}

/// Takes what Barbican answers to `GET /v1/secrets/{id}` with `Accept: application/json`.
///
/// # Errors
/// As [`image`].
pub fn secret(answer: &Value) -> Result<SecretInfo> {
    let fields = Fields::of("secret", answer)?;
    let href = fields.text("secret_ref")?.ok_or_else(|| fields.wrong("secret_ref", "an address"))?;
    let id = href.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    check_id("secret.secret_ref", id)?;
    let types = answer.get("content_types").and_then(|types| types.get("default"));
    Ok(SecretInfo {
        id: id.to_owned(),
        name: fields.text("name")?,
        secret_type: fields.text("secret_type")?.unwrap_or_else(|| "opaque".into()),
        algorithm: fields.text("algorithm")?,
        bit_length: fields.number("bit_length")?,
        mode: fields.text("mode")?,
        content_type: types.and_then(Value::as_str).map(str::to_owned),
        created: fields.text("created")?,
        expiration: fields.text("expiration")?,
    })
}

/// Takes what Cinder answers to `GET /v3/volumes/{id}`, with its outer `volume` or without.
///
/// # Errors
/// As [`image`].
pub fn volume(answer: &Value) -> Result<VolumeInfo> {
    let fields = Fields::of("volume", answer.get("volume").unwrap_or(answer))?;
    Ok(VolumeInfo {
        id: fields.id("id")?,
        name: fields.text("name")?.filter(|name| !name.is_empty()),
        snapshot: None,
        volume_type: fields.text("volume_type")?,
        size: fields.number("size")?,
        availability_zone: fields.text("availability_zone")?,
        encryption: None,
    })
}

/// Takes what Cinder answers to `GET /v3/types/{id}/encryption`; `None` where the type has none.
///
/// # Errors
/// As [`image`].
pub fn encryption(answer: &Value) -> Result<Option<Encryption>> {
    let fields = Fields::of("encryption", answer)?;
    let provider = fields.text("provider")?;
    if provider.is_none() {
        return Ok(None);
    }
    Ok(Some(Encryption {
        provider,
        cipher: fields.text("cipher")?,
        key_size: fields.number("key_size")?,
        control_location: fields.text("control_location")?,
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_image_keeps_its_custom_properties_and_no_link_into_the_cloud() {
        let answer = json!({
            "id": "6f0b8d5c-2f0e-4c5e-9a8e-0d5a7d1f0001", "name": "db", "status": "active", "size": 4,
            "checksum": "098F6BCD4621D373CADE4E832627B4F6", "tags": ["nightly"], "os_hidden": false, "file": "/v2/x",
            "self": "/v2/y", "schema": "/v2/z", "stores": "ceph", "locations": [], "direct_url": "rbd://x",
            "cinder_encryption_key_id": "k-1", "hw_disk_bus": "scsi",
        });
        let image = image(&answer).unwrap();
        let names: Vec<_> = image.properties.keys().map(String::as_str).collect();
        assert_eq!(names, ["cinder_encryption_key_id", "hw_disk_bus"]);
        assert_eq!(image.checksum.unwrap(), "098f6bcd4621d373cade4e832627b4f6");
    }

    #[test]
    fn secrets_volumes_and_their_encryption_are_taken() {
        let answer = json!({
            "secret_ref": "http://127.0.0.1:19311/v1/secrets/k-1", "name": null, "secret_type": "symmetric",
            "algorithm": "AES", "bit_length": 256, "mode": "XTS", "created": "2026-01-01T00:00:00.000001",
            "expiration": null, "status": "ACTIVE", "content_types": {"default": "application/octet-stream"},
        });
        let secret = secret(&answer).unwrap();
        assert_eq!((&*secret.id, secret.bit_length), ("k-1", Some(256)));
        assert_eq!(secret.content_type.as_deref(), Some("application/octet-stream"));
        let answer = json!({"volume": {"id": "v-1", "name": "", "volume_type": "luks", "size": 1, "encrypted": true}});
        let volume = volume(&answer).unwrap();
        assert_eq!((&*volume.id, volume.name, volume.size), ("v-1", None, Some(1)));
        let answer = json!({"provider": "luks", "cipher": "aes-xts-plain64", "key_size": 256,
            "control_location": "front-end", "encryption_id": "x"});
        let encryption = encryption(&answer).unwrap().unwrap();
        assert_eq!((encryption.provider.as_deref(), encryption.key_size), (Some("luks"), Some(256)));
    }

    #[test]
    fn answers_with_other_types_are_refused() {
        for (key, value) in [("id", json!(7)), ("id", json!("a/../b")), ("size", json!("4")), ("tags", json!("x"))] {
            let mut answer = json!({"id": "i-1"});
            answer[key] = value;
            let e = image(&answer).unwrap_err();
            assert_eq!(e.rule(), format!("image.{key}"), "{e}");
        }
        assert_eq!(secret(&json!({"secret_ref": "http://x/v1/secrets/.."})).unwrap_err().rule(), "secret.secret_ref");
        assert_eq!(volume(&json!({"volume": {}})).unwrap_err().rule(), "volume.id");
        assert_eq!(encryption(&json!({})).unwrap(), None);
        assert!(image(&json!([])).is_err());
    }
}
