//! What the services answer, as far as a backup keeps it. An answer is taken as hostile: each field has its type.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Encryption, ImageInfo, SecretInfo, VolumeInfo, check_id};
use crate::error::{Error, Result, escape};

/// Fields of an image that are Glance's own (image schema v2.16, and what `image_location` and stores add).
pub(super) const IMAGE_FIELDS: [&str; 25] = [
    "id",
    "name",
    "status",
    "visibility",
    "protected",
    "checksum",
    "os_hash_algo",
    "os_hash_value",
    "os_hidden",
    "owner",
    "size",
    "virtual_size",
    "min_disk",
    "min_ram",
    "disk_format",
    "container_format",
    "created_at",
    "updated_at",
    "tags",
    "file",
    "self",
    "schema",
    "direct_url",
    "locations",
    "stores",
];

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

impl ImageInfo {
    /// Takes what Glance answers to `GET /v2/images/{id}`.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) with the field as the rule, where one has another type.
    pub fn from_glance(answer: &Value) -> Result<Self> {
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
        Ok(Self {
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
}

impl SecretInfo {
    /// Takes what Barbican answers to `GET /v1/secrets/{id}` with `Accept: application/json`.
    ///
    /// # Errors
    /// As [`ImageInfo::from_glance`].
    pub fn from_barbican(answer: &Value) -> Result<Self> {
        let fields = Fields::of("secret", answer)?;
        let href = fields.text("secret_ref")?.ok_or_else(|| fields.wrong("secret_ref", "an address"))?;
        let id = href.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        check_id("secret.secret_ref", id)?;
        let types = answer.get("content_types").and_then(|types| types.get("default"));
        Ok(Self {
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
}

impl VolumeInfo {
    /// Takes what Cinder answers to `GET /v3/volumes/{id}`, with its outer `volume` or without.
    ///
    /// # Errors
    /// As [`ImageInfo::from_glance`].
    pub fn from_cinder(answer: &Value) -> Result<Self> {
        let fields = Fields::of("volume", answer.get("volume").unwrap_or(answer))?;
        Ok(Self {
            id: fields.id("id")?,
            name: fields.text("name")?.filter(|name| !name.is_empty()),
            snapshot: None,
            volume_type: fields.text("volume_type")?,
            size: fields.number("size")?,
            availability_zone: fields.text("availability_zone")?,
            encryption: None,
        })
    }
}

impl Encryption {
    /// Takes what Cinder answers to `GET /v3/types/{id}/encryption`; `None` where the type has none.
    ///
    /// # Errors
    /// As [`ImageInfo::from_glance`].
    pub fn from_cinder(answer: &Value) -> Result<Option<Self>> {
        let fields = Fields::of("encryption", answer)?;
        let provider = fields.text("provider")?;
        if provider.is_none() {
            return Ok(None);
        }
        Ok(Some(Self {
            provider,
            cipher: fields.text("cipher")?,
            key_size: fields.number("key_size")?,
            control_location: fields.text("control_location")?,
        }))
    }
}
