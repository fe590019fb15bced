//! Volumes and snapshots: whose key they have, and how their data becomes an image that can be downloaded.

use serde_json::{Value, json};

use super::image::{FIXED_KEY, fixed_key};
use super::steps::{
    Api, KEY_ID_VERSION, Resource, ResourceKind, Stop, check_cancelled, get, id, is_id, post, text, wait,
};
use super::{Answer, Request, Service};
use crate::shapes;
use unluks::backup::plan::wait_line;
use unluks::backup::{Encryption, VolumeInfo};
use unluks::error::{Error, ErrorKind, Result, escape};

/// What is found under a name or an id.
#[derive(Clone, Debug)]
pub struct Found {
    /// The volume, with the snapshot that led to it.
    pub info: VolumeInfo,
    /// The secret that it is encrypted by.
    pub key_id: String,
    /// Cinder's word for what the volume is doing.
    pub status: String,
    /// GiB of the snapshot, where one led here.
    snapshot_size: Option<u64>,
}

/// Finds a volume or a snapshot by its id or its name, and the secret of its key.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] where there is none, or several have the name; [`ErrorKind::Unsupported`] where it is not
/// encrypted, or its key cannot be found; what Cinder refused.
pub fn find(api: &dyn Api, wanted: &str) -> Result<Found> {
    let (volume, snapshot) = match by_id_or_name(api, ResourceKind::Volume, wanted)? {
        Some(volume) => (volume, None),
        None => {
            let Some(snapshot) = by_id_or_name(api, ResourceKind::Snapshot, wanted)? else {
                let message = format!("no volume and no snapshot has the id or name \"{}\"", escape(wanted));
                return Err(Error::invalid(message)
                    .with_rule("volume.unknown")
                    .with_hint("openstack volume list; openstack volume snapshot list: is it another project's?"));
            };
            let of = id(&snapshot, "/volume_id")?;
            let volume = show(api, ResourceKind::Volume, &of)?.ok_or_else(|| {
                let message = format!("the volume {of} of the snapshot is not there, and only it names the key");
                Error::unsupported("volume.snapshot", message)
                    .with_hint("make a volume of the snapshot (openstack volume create --snapshot), and fetch that")
            })?;
            (volume, Some(snapshot))
        }
    };
    let mut info = shapes::volume(&volume)?;
    info.snapshot = snapshot.as_ref().map(|s| id(s, "/id")).transpose()?;
    info.encryption = encryption(api, &volume)?;
    Ok(Found {
        key_id: key_id(&volume)?,
        status: text(&volume, "/status").to_owned(),
        snapshot_size: snapshot.as_ref().and_then(|s| s.get("size")?.as_u64()),
        info,
    })
}

/// The name under which Cinder answers with one, and with a list.
fn names(kind: ResourceKind) -> (&'static str, &'static str) {
    match kind {
        ResourceKind::Snapshot => ("snapshot", "snapshots"),
        _ => ("volume", "volumes"),
    }
}

fn show(api: &dyn Api, kind: ResourceKind, wanted: &str) -> Result<Option<Value>> {
    let answer = get(api, Service::BlockStorage, &kind.path(wanted))?;
    match answer.status {
        404 => Ok(None),
        406 => Err(too_old()),
        _ => {
            let json = answer.success(&format!("looking for the {}", names(kind).0))?;
            Ok(json.get(names(kind).0).cloned())
        }
    }
}

fn too_old() -> Error {
    Error::unsupported("volume.version", format!("Cinder is older than {KEY_ID_VERSION}, and does not name keys"))
        .with_hint("ask the cloud's operators for the volume's encryption_key_id, and fetch it with unluks fetch key")
}

fn by_id_or_name(api: &dyn Api, kind: ResourceKind, wanted: &str) -> Result<Option<Value>> {
    if is_id(wanted)
        && let Some(found) = show(api, kind, wanted)?
    {
        return Ok(Some(found));
    }
    let (one, list) = names(kind);
    let request = Request {
        query: &[("name", wanted)],
        headers: &[("accept", "application/json"), ("openstack-api-version", KEY_ID_VERSION)],
        ..Request::get(Service::BlockStorage, list)
    };
    let answer: Answer = api.send(&request)?;
    if answer.status == 406 {
        return Err(too_old());
    }
    let json = answer.success(&format!("looking for the {one}"))?;
    let all = json.get(list).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    // Some releases take the name for a part of one.
    let same: Vec<_> = all.iter().filter(|found| text(found, "/name") == wanted).collect();
    match same[..] {
        [] => Ok(None),
        [only] => show(api, kind, &id(only, "/id")?),
        _ => {
            let ids: Vec<_> = same.iter().take(8).map(|found| escape(text(found, "/id"))).collect();
            let message = format!("{} {list} are named \"{}\"", same.len(), escape(wanted));
            Err(Error::invalid(message)
                .with_rule("volume.ambiguous")
                .with_hint(format!("name its id: {}", ids.join(", "))))
        }
    }
}

fn key_id(volume: &Value) -> Result<String> {
    let encrypted = volume.get("encrypted").and_then(Value::as_bool).unwrap_or(false);
    match (text(volume, "/encryption_key_id"), encrypted) {
        ("" | FIXED_KEY, true) => Err(fixed_key("volume.fixed-key")),
        ("", false) => Err(Error::unsupported("volume.plain", "the volume is not encrypted: it has no key to fetch")
            .with_hint("openstack image create --volume, and openstack image save, give its data")),
        _ => id(volume, "/encryption_key_id"),
    }
}

/// A volume by its id, with its encryption.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] where there is none; what Cinder refused.
pub fn describe(api: &dyn Api, id: &str) -> Result<VolumeInfo> {
    let volume = show(api, ResourceKind::Volume, id)?
        .ok_or_else(|| Error::invalid(format!("the volume {} is not there", escape(id))).with_rule("volume.unknown"))?;
    Ok(VolumeInfo { encryption: encryption(api, &volume)?, ..shapes::volume(&volume)? })
}

/// How it is encrypted: by Cinder's word for the volume, which its owner may see, or by that for its type, which most users
/// may not.
fn encryption(api: &dyn Api, volume: &Value) -> Result<Option<Encryption>> {
    let mut places = vec![format!("volumes/{}/encryption", id(volume, "/id")?)];
    places.extend(id(volume, "/volume_type_id").map(|id| format!("types/{id}/encryption")));
    for place in places {
        let answer = get(api, Service::BlockStorage, &place)?;
        if answer.status == 200
            && let Some(found) = shapes::encryption(&answer.json()?)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Where the data of an image is to come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// The volume itself, which nobody uses.
    Volume,
    /// A snapshot that is there.
    Snapshot,
    /// A snapshot that is to be made, as the volume is in use.
    NewSnapshot,
}

impl Found {
    /// The name that [`Found::steps`] give the image.
    pub const IMAGE_NAME: &str = "unluks-fetch";

    fn from(&self) -> From {
        match (&self.info.snapshot, self.status.as_str()) {
            (Some(_), _) => From::Snapshot,
            (None, "in-use") => From::NewSnapshot,
            _ => From::Volume,
        }
    }

    /// The commands by which the data becomes an image, is fetched by `fetch`, and all that was made is deleted again: a
    /// script in a subshell, which ends where a step fails.
    ///
    /// `client` is how the openstack client is called, ready for a shell.
    pub fn steps(&self, client: &str, fetch: &str) -> Vec<String> {
        let size = self.snapshot_size.or(self.info.size).unwrap_or(1);
        let (volume, name) = (&self.info.id, Self::IMAGE_NAME);
        let mut steps = vec!["(set -e".to_owned()];
        let wait = |what: &str, id: &str, status: &str| wait_line(client, what, id, status);
        let mut clean_up = Vec::new();
        let snapshot = match (self.from(), &self.info.snapshot) {
            (From::NewSnapshot, _) => {
                steps.push("# The volume is in use: the copy is as after a loss of power (crash-consistent, not app-consistent).".into());
                steps.push(
                    "# For more, stop the server, or sync and freeze its file systems, until the snapshot is there."
                        .into(),
                );
                steps.push(format!(
                    "snapshot=$({client} volume snapshot create -f value -c id --force --volume {volume} {name})"
                ));
                steps.push(wait("volume snapshot", "\"$snapshot\"", "available"));
                clean_up.push(format!("{client} volume snapshot delete \"$snapshot\""));
                Some("\"$snapshot\"".to_owned())
            }
            (From::Snapshot, Some(snapshot)) => Some(snapshot.clone()),
            _ => None,
        };
        let source = match snapshot {
            Some(snapshot) => {
                steps.push(format!(
                    "volume=$({client} volume create -f value -c id --snapshot {snapshot} --size {size} {name})"
                ));
                steps.push(wait("volume", "\"$volume\"", "available"));
                // A snapshot goes only when no volume is being made of it any more.
                let gone = "while ";
                clean_up.insert(0, format!("{gone}{client} volume show \"$volume\" >/dev/null 2>&1; do sleep 2; done"));
                clean_up.insert(0, format!("{client} volume delete \"$volume\""));
                "\"$volume\"".to_owned()
            }
            None => volume.clone(),
        };
        steps.push(format!(
            "image=$({client} image create -f value -c image_id --volume {source} --disk-format raw --container-format bare {name})"
        ));
        steps.push(wait("image", "\"$image\"", "active"));
        steps.push(format!("{fetch} \"$image\""));
        steps.push("# What was made for this:".into());
        steps.push(format!("{client} image delete \"$image\""));
        if let (Some(_), true) = (clean_up.first(), source == "\"$volume\"") {
            steps.push(wait("volume", "\"$volume\"", "available"));
        }
        steps.extend(clean_up);
        steps.push(")".into());
        steps
    }

    /// Makes an image of the data, and gives its id. All that is made on the way is put into `made` as soon as it is, the
    /// image last; whoever calls takes it back.
    ///
    /// # Errors
    /// What Cinder refused; [`ErrorKind::Io`] where it failed; `cancelled`.
    pub fn make_image(
        &self,
        api: &dyn Api,
        made: &mut Vec<Resource>,
        stop: &Stop,
        tell: &dyn Fn(&str),
    ) -> Result<String> {
        let name = format!("unluks-{}", self.info.id);
        let snapshot = match self.from() {
            From::Volume => None,
            From::Snapshot => self.info.snapshot.clone(),
            From::NewSnapshot => Some(self.make_snapshot(api, &name, made, stop, tell)?),
        };
        let source = match snapshot {
            None if self.status != "available" => {
                let message = format!("the volume is {}; available or in-use is wanted", escape(&self.status));
                return Err(
                    Error::unsupported("volume.status", message).with_hint("wait until it is, or give a snapshot")
                );
            }
            None => self.info.id.clone(),
            Some(snapshot) => self.make_volume(api, &name, &snapshot, made, stop, tell)?,
        };
        check_cancelled(stop)?;
        let body = json!({"os-volume_upload_image": {
            "image_name": name, "disk_format": "raw", "container_format": "bare", "force": false,
        }});
        let answer = post(api, Service::BlockStorage, &format!("volumes/{source}/action"), &body)?;
        if answer.status == 400 && answer.words().contains("'properties'") {
            return Err(answer.error("making an image of the volume").with_hint(format!(
                "Cinder fails so where the image that the volume was made of had no property but its key's: openstack \
                 volume set --image-property made-of=image {}, and again",
                self.info.id
            )));
        }
        let image = id(&answer.success("making an image of the volume")?, "/os-volume_upload_image/image_id")?;
        made.push(Resource { kind: ResourceKind::Image, id: image.clone() });
        tell(&format!("image {image}: waiting until Cinder has uploaded volume {source}"));
        wait("uploading the volume", stop, || {
            let answer = get(api, Service::Image, &ResourceKind::Image.path(&image))?;
            let failed = || {
                let e = Error::new(ErrorKind::Io, "Cinder could not upload the volume").with_rule("volume.upload");
                Err(with_reason(api, &source, e))
            };
            match answer.status {
                // Cinder deletes the image where it fails.
                404 => failed(),
                _ => match text(&answer.success("looking at the image")?, "/status") {
                    "active" => Ok(Some(())),
                    "queued" | "saving" | "importing" | "uploading" => Ok(None),
                    _ => failed(),
                },
            }
        })?;
        // The volume is free again a moment after the image is there, and cannot be deleted before.
        self.wait_for(api, ResourceKind::Volume, &source, stop)?;
        Ok(image)
    }

    fn make_snapshot(
        &self,
        api: &dyn Api,
        name: &str,
        made: &mut Vec<Resource>,
        stop: &Stop,
        tell: &dyn Fn(&str),
    ) -> Result<String> {
        let body = json!({"snapshot": {"volume_id": self.info.id, "name": name, "force": true}});
        let answer = post(api, Service::BlockStorage, "snapshots", &body)?.success("making a snapshot")?;
        let id = id(&answer, "/snapshot/id")?;
        made.push(Resource { kind: ResourceKind::Snapshot, id: id.clone() });
        tell(&format!("snapshot {id} of the volume, which is in use"));
        self.wait_for(api, ResourceKind::Snapshot, &id, stop)?;
        Ok(id)
    }

    fn make_volume(
        &self,
        api: &dyn Api,
        name: &str,
        snapshot: &str,
        made: &mut Vec<Resource>,
        stop: &Stop,
        tell: &dyn Fn(&str),
    ) -> Result<String> {
        check_cancelled(stop)?;
        let size = self.snapshot_size.or(self.info.size);
        let body = json!({"volume": {"snapshot_id": snapshot, "size": size, "name": name}});
        let answer = post(api, Service::BlockStorage, "volumes", &body)?.success("making a volume of the snapshot")?;
        let id = id(&answer, "/volume/id")?;
        made.push(Resource { kind: ResourceKind::Volume, id: id.clone() });
        tell(&format!("volume {id} of the snapshot"));
        self.wait_for(api, ResourceKind::Volume, &id, stop)?;
        Ok(id)
    }

    /// Waits until a volume or snapshot is available; one that is in use stays in use.
    fn wait_for(&self, api: &dyn Api, kind: ResourceKind, id: &str, stop: &Stop) -> Result<()> {
        let one = names(kind).0;
        wait(&format!("making the {one}"), stop, || {
            let answer = get(api, Service::BlockStorage, &kind.path(id))?.success(&format!("looking at the {one}"))?;
            match text(&answer, &format!("/{one}/status")) {
                "available" | "in-use" => Ok(Some(())),
                status if status.starts_with("error") => {
                    let e = Error::new(ErrorKind::Io, format!("Cinder could not make the {one}"));
                    Err(with_reason(api, id, e.with_rule("volume.error")))
                }
                _ => Ok(None),
            }
        })
    }
}

/// `e` with Cinder's own words for what went wrong with a volume, a snapshot or a backup, where it has any: the newest of
/// `/v3/messages` (from microversion 3.3 on).
pub(crate) fn with_reason(api: &dyn Api, id: &str, e: Error) -> Error {
    let request = Request {
        query: &[("resource_uuid", id)],
        headers: &[("accept", "application/json"), ("openstack-api-version", KEY_ID_VERSION)],
        ..Request::get(Service::BlockStorage, "messages")
    };
    let Ok(Ok(json)) = api.send(&request).map(|answer| answer.success("asking why")) else { return e };
    let messages = json.get("messages").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let newest = messages.iter().max_by_key(|message| text(message, "/created_at"));
    match newest.map(|message| text(message, "/user_message")).unwrap_or_default() {
        "" => e,
        words => e.with_hint(format!("Cinder says: {}", escape(words))),
    }
}

#[cfg(test)]
mod tests;
