//! Finding an image, and what its metadata says: its key, and why its data cannot be had.

use serde_json::Value;

use super::answer::{Request, Service};
use super::cloud::Cloud;
use crate::shapes;
use unluks::backup::{ImageInfo, KEY_PROPERTIES};
use unluks::error::{Error, Result, counted, escape};
use unluks::limits::CLOUD_SNAPSHOTS_MAX;

/// The id that Cinder and Nova give to the fixed key of their configuration (`fixed_key` of castellan's conf_key_manager).
pub const FIXED_KEY: &str = "00000000-0000-0000-0000-000000000000";

/// An image as Glance describes it.
#[derive(Clone, Debug)]
pub struct Image {
    /// What a backup keeps of it.
    pub info: ImageInfo,
    /// `active`, `queued`, …
    pub status: String,
}

/// A snapshot that the image of a volume-booted server stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The snapshot's id.
    pub id: String,
    /// GiB, where it is known.
    pub size: Option<u64>,
    /// The device that the server had it as.
    pub device: Option<String>,
    /// Whether the server starts from it.
    pub boot: bool,
}

/// Finds an image by its id or its name.
///
/// # Errors
/// [`ErrorKind::InvalidInput`](unluks::ErrorKind::InvalidInput) where there is none, or several have the name; otherwise
/// as [`Cloud::send`].
pub fn find(cloud: &Cloud, id_or_name: &str) -> Result<Image> {
    let shown = escape(id_or_name);
    if looks_like_id(id_or_name) {
        let answer = cloud.send(&Request::get(Service::Image, &format!("images/{id_or_name}")))?;
        if answer.status != 404 {
            return Image::of(&answer.success("reading the image's metadata")?);
        }
    }
    let query = &[("name", id_or_name), ("limit", "10")];
    let answer = cloud.send(&Request { query, ..Request::get(Service::Image, "images") })?;
    let list = answer.success("listing images")?;
    let images = |list: &Value| list.get("images").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut found = images(&list);
    if found.is_empty() {
        // Hidden ones are listed only where they are asked for; the openstack program looks there second, too.
        let query = &[("name", id_or_name), ("os_hidden", "true"), ("limit", "10")];
        let answer = cloud.send(&Request { query, ..Request::get(Service::Image, "images") })?;
        found = images(&answer.success("listing hidden images")?);
    }
    match &found[..] {
        [image] => Image::of(image),
        [] => Err(Error::invalid(format!("Glance shows no image with the id or name \"{shown}\"")).with_rule("image.id").with_hint(
            "an image of another project looks like one that is not there: name its cloud with --cloud, or have it shared and name its id",
        )),
        several => {
            let ids: Vec<_> = several.iter().filter_map(|image| image.get("id")?.as_str()).map(escape).collect();
            let message = format!("{} are named \"{shown}\": {}", counted(several.len(), "image"), ids.join(", "));
            Err(Error::invalid(message).with_rule("image.name").with_hint("name one by its id"))
        }
    }
}

/// Whether a text has the form of an id: 32 hex digits, with hyphens or without.
fn looks_like_id(text: &str) -> bool {
    let digits = text.bytes().filter(u8::is_ascii_hexdigit).count();
    digits == 32 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

impl Image {
    fn of(answer: &Value) -> Result<Self> {
        let info = shapes::image(answer)?;
        let status = answer.get("status").and_then(Value::as_str).unwrap_or_default();
        Ok(Self { info, status: status.to_owned() })
    }

    /// The property that names the key, and the secret's id; `None` where the image is not encrypted.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](unluks::ErrorKind::Unsupported) where the key is no secret of Barbican;
    /// [`ErrorKind::Corrupt`](unluks::ErrorKind::Corrupt) where the property is no id.
    pub fn key(&self) -> Result<Option<(&'static str, &str)>> {
        let found = KEY_PROPERTIES.iter().find_map(|name| Some((*name, self.info.properties.get(*name)?.as_str())));
        let Some((property, id)) = found else { return Ok(None) };
        check_key_id(&format!("image.{property}"), id)?;
        Ok(Some((property, id)))
    }

    /// The snapshots that an image of a volume-booted server stands for: it has no data of its own.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](unluks::ErrorKind::Corrupt) where the property is not what Nova writes.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>> {
        let Some(text) = self.info.properties.get("block_device_mapping") else { return Ok(Vec::new()) };
        let wrong = || Error::corrupt("image.block_device_mapping", "it is no list of devices in JSON");
        let list: Value = serde_json::from_str(text).map_err(|_| wrong())?;
        let of = |device: &Value| {
            let id = device.get("snapshot_id")?.as_str().filter(|id| looks_like_id(id))?;
            Some(Snapshot {
                id: id.to_owned(),
                size: device.get("volume_size").and_then(Value::as_u64),
                device: device.get("device_name").and_then(Value::as_str).map(escape),
                boot: device.get("boot_index").and_then(Value::as_i64) == Some(0),
            })
        };
        Ok(list.as_array().ok_or_else(wrong)?.iter().filter_map(of).take(CLOUD_SNAPSHOTS_MAX).collect())
    }

    /// Says why the image's data cannot be had, where that is known before it is asked for.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](unluks::ErrorKind::InvalidInput) with the rule `image.block_device_mapping`,
    /// `image.status` or `image.size`.
    pub fn check_data(&self) -> Result<u64> {
        let refuse = |rule: &'static str, message: String| Error::invalid(message).with_rule(rule);
        let snapshots = self.snapshots()?;
        if self.info.size.unwrap_or(0) == 0 && !snapshots.is_empty() {
            let ids: Vec<_> = snapshots.iter().map(|s| s.id.as_str()).collect();
            let message = format!(
                "the image has no data: its server had booted from a volume, and the data is in the snapshots {}",
                ids.join(", ")
            );
            let hint = format!("unluks fetch volume {} says how to get at it", ids[0]);
            return Err(refuse("image.block_device_mapping", message).with_hint(hint));
        }
        if self.status != "active" {
            let (message, hint) = match self.status.as_str() {
                "queued" => ("the image has no data: none was ever uploaded", "whoever made it must upload it"),
                "saving" | "importing" | "uploading" => {
                    ("the image's data is still being uploaded", "wait until it is")
                }
                "deactivated" => ("the image was deactivated by an administrator", "ask them why"),
                _ => ("the image has no data that can be downloaded", "ask whoever made it"),
            };
            return Err(refuse("image.status", format!("{message} (status {})", escape(&self.status))).with_hint(hint));
        }
        match self.info.size {
            None => Err(refuse("image.size", "Glance does not say how large the image is".into())),
            Some(0) => Err(refuse("image.size", "the image has 0 bytes".into())
                .with_hint("a snapshot of a volume-booted server looks so: look for snapshots of its volumes")),
            Some(size) => Ok(size),
        }
    }
}

/// Refuses an id that is none, and the one that says that there is no secret.
pub(super) fn check_key_id(rule: &str, id: &str) -> Result<()> {
    if !looks_like_id(id) {
        return Err(Error::corrupt(rule.to_owned(), format!("found \"{}\"; an id of a secret is wanted", escape(id))));
    }
    if id.replace('-', "") == FIXED_KEY.replace('-', "") {
        return Err(fixed_key(rule));
    }
    Ok(())
}

/// The error of what is encrypted by the one key of the cloud's configuration.
///
/// castellan's conf_key_manager un-hexes `fixed_key`, and Cinder and Nova hex the bytes again for the passphrase: what is
/// left of it is lower case.
pub(super) fn fixed_key(rule: &str) -> Error {
    let message = "the key is no secret of Barbican, but the fixed key of the cloud's configuration (an id of zeroes)";
    let hint = "whoever runs the cloud has it: fixed_key in [key_manager] of cinder.conf and nova.conf. Its hex digits in \
                lower case, without a newline, are the passphrase: give them to --key-file";
    Error::unsupported(rule.to_owned(), message).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(fields: Value) -> Image {
        let mut answer =
            serde_json::json!({"id": "b5978217-1f6b-437c-8297-83365ec4984a", "status": "active", "size": 0});
        answer.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        Image::of(&answer).unwrap()
    }

    #[test]
    fn the_key_is_found_by_either_property() {
        let id = "f3751d16-b782-48ab-b87c-4fc5c0bbb9ab";
        for property in KEY_PROPERTIES {
            assert_eq!(image(serde_json::json!({property: id})).key().unwrap(), Some((property, id)));
        }
        assert_eq!(image(serde_json::json!({})).key().unwrap(), None);
        let e = image(serde_json::json!({"os_encrypt_key_id": "../../etc"})).key().unwrap_err();
        assert_eq!(e.rule(), "image.os_encrypt_key_id");
    }

    #[test]
    fn a_key_of_zeroes_is_the_fixed_key_of_the_configuration() {
        for id in [FIXED_KEY, &FIXED_KEY.replace('-', "")] {
            let e = image(serde_json::json!({"cinder_encryption_key_id": id})).key().unwrap_err();
            assert_eq!((e.kind(), e.rule()), (unluks::ErrorKind::Unsupported, "image.cinder_encryption_key_id"), "{e}");
            assert!(e.to_string().contains("fixed_key"), "{e}");
        }
    }

    #[test]
    fn a_volume_booted_image_names_its_snapshots() {
        let mapping = r#"[{"snapshot_id":"fb37a82a-641b-489f-92f6-47b0df1a45f5","volume_size":1,"boot_index":0,"device_name":"/dev/vda"},
            {"snapshot_id":"$(reboot)"},{"volume_id":"x"},7]"#;
        let image = image(serde_json::json!({"block_device_mapping": mapping}));
        let snapshots = image.snapshots().unwrap();
        assert_eq!(snapshots.len(), 1);
        assert!(snapshots[0].boot && snapshots[0].size == Some(1));
        let e = image.check_data().unwrap_err();
        assert_eq!(e.rule(), "image.block_device_mapping");
        assert!(e.to_string().contains("unluks fetch volume fb37a82a-641b-489f-92f6-47b0df1a45f5"), "{e}");
    }

    #[test]
    fn an_image_without_data_says_why() {
        for (fields, rule) in [
            (serde_json::json!({"status": "queued", "size": null}), "image.status"),
            (serde_json::json!({"status": "deactivated", "size": 5}), "image.status"),
            (serde_json::json!({"size": 0}), "image.size"),
            (serde_json::json!({"size": null}), "image.size"),
            (serde_json::json!({"block_device_mapping": "{"}), "image.block_device_mapping"),
        ] {
            assert_eq!(image(fields).check_data().unwrap_err().rule(), rule);
        }
        assert_eq!(image(serde_json::json!({"size": 5})).check_data().unwrap(), 5);
    }
}
