//! Brings a backup back into a cloud: the steps of its plan, one after the other, and back again where one fails.

use std::fs::File;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use base64::Engine;
use md5::Digest;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::steps::{
    Api, Resource, ResourceKind, Stop, check_cancelled, get, id, pause, post, roll_back, text, wait, with_remains,
};
use super::{Answer, Body, Method, Request, Service};
use unluks::backup::BackupDir;
use unluks::backup::plan::Plan;
use unluks::error::{Error, ErrorKind, Hint, Result, choice, escape};
use unluks::luks::metadata::Version;
use unluks::num::to_u64;
use unluks::progress::Progress;

/// How much of a LUKS2 image is uploaded to see whether Glance takes it: more than it looks at.
const PROBE: u64 = 1 << 20;
/// How often an image is uploaded.
const UPLOADS: u32 = 3;

/// How a restore runs, and who is told of it.
pub struct Restore<'a> {
    /// The cloud.
    pub api: &'a dyn Api,
    /// The backup.
    pub dir: &'a BackupDir,
    /// Its plan.
    pub plan: &'a Plan,
    /// Bytes that were uploaded; cancelling it stops the run.
    pub progress: &'a Progress,
    /// A second signal sets it: cleaning up stops too.
    pub abort: &'a Stop,
    /// Is told each step, in one line.
    pub tell: &'a (dyn Fn(&str) + Sync),
}

impl Restore<'_> {
    /// Makes what the plan wants, and gives it in the order of making.
    ///
    /// An image and a secret that are whole are kept where only the volume fails.
    ///
    /// # Errors
    /// What the cloud refused; [`ErrorKind::Corrupt`] where the image is not what was recorded, here or there;
    /// `cancelled`. The hint says what is left in the cloud.
    pub fn run(&self) -> Result<Vec<Resource>> {
        let stop = self.progress.cancel_flag();
        let volume_type = self.check(&stop)?;
        let mut made = Vec::new();
        let result = self.secret_and_image(&mut made, &stop);
        if let Err(e) = result {
            let remain = roll_back(self.api, &made, self.abort);
            return Err(with_remains(e, &made, &remain));
        }
        if self.plan.volume_wanted {
            let whole = made.len();
            if let Err(e) = self.volume(volume_type.as_deref(), &mut made, &stop) {
                let volumes = made.split_off(whole);
                let remain = roll_back(self.api, &volumes, self.abort);
                let kept: Vec<_> = made.iter().map(|m| format!("{} {}", m.kind.name(), m.id)).collect();
                let left: Vec<_> = remain.iter().map(|m| format!("; {}", m.delete_command())).collect();
                return Err(e.with_hint(format!("kept, as they are whole: {}{}", kept.join(", "), left.concat())));
            }
        }
        Ok(made)
    }

    /// Looks for what would fail late, before anything is made.
    fn check(&self, stop: &Stop) -> Result<Option<String>> {
        let volume_type = if self.plan.volume_wanted { self.volume_type()? } else { None };
        if self.plan.luks == Some(Version::V2) && self.plan.image.disk_format == "raw" {
            self.probe(stop)?;
        }
        Ok(volume_type)
    }

    /// The id of the wanted volume type.
    fn volume_type(&self) -> Result<Option<String>> {
        let Some(wanted) = &self.plan.volume.volume_type else {
            return match self.plan.secret {
                None => Ok(None),
                Some(_) => Err(Error::invalid("the backup does not tell the volume's type")
                    .with_rule("restore.volume-type")
                    .with_hint(Hint::NameVolumeType)),
            };
        };
        let json = get(self.api, Service::BlockStorage, "types")?.success("listing the volume types")?;
        let types = json.get("volume_types").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let Some(found) = types.iter().find(|t| text(t, "/name") == wanted) else {
            let names: Vec<_> = types.iter().take(20).map(|t| escape(text(t, "/name"))).collect();
            let message = format!("the volume type {} is not there; {}", escape(wanted), choice(&names));
            return Err(Error::unsupported("restore.volume-type", message).with_hint(Hint::NameVolumeType));
        };
        let id = id(found, "/id")?;
        // Most users may not see this; who may is told.
        let encryption = get(self.api, Service::BlockStorage, &format!("types/{id}/encryption"))?;
        let plain = encryption.is_success() && text(&encryption.json()?, "/provider").is_empty();
        if plain && self.plan.secret.is_some() {
            let message = format!("the volume type {} does not encrypt, but the image is encrypted", escape(wanted));
            return Err(Error::unsupported("restore.volume-type", message).with_hint(Hint::NameVolumeType));
        }
        Ok(Some(id))
    }

    /// Uploads the start of a LUKS2 image as an image of its own, which Glance judges as it would judge the whole.
    fn probe(&self, stop: &Stop) -> Result<()> {
        check_cancelled(stop)?;
        (self.tell)("asking Glance whether it takes LUKS2, with the header alone");
        let body =
            json!({"name": "unluks-probe", "disk_format": "raw", "container_format": "bare", "visibility": "private"});
        let mut made = Vec::new();
        let result = self.create_image(&body, &mut made).and_then(|id| {
            self.send_all(&id, PROBE.min(self.plan.image.size), &Progress::default()).map(|(answer, _)| answer)
        });
        let remain = roll_back(self.api, &made, self.abort);
        let answer = result.map_err(|e| with_remains(e, &made, &remain))?;
        if let Some(probe) = remain.first() {
            (self.tell)(&format!("the probe could not be deleted: {}", probe.delete_command()));
        }
        match answer.status {
            200..=299 => Ok(()),
            415 => Err(Error::unsupported(
                "restore.luks2",
                "this Glance refuses LUKS2 containers as raw images (415); it was asked with the header alone",
            )
            .with_hint("decrypt the backup onto a new encrypted volume that is attached to a server: unluks decrypt DIR --output /dev/DEVICE --force")),
            _ => Err(answer.error("uploading the header to see whether Glance takes it")),
        }
    }

    /// Uploads the first `len` bytes of the image, hashed and counted on the way.
    fn send_data(&self, id: &str, len: u64, progress: &Progress) -> Result<(Answer, Hashes)> {
        let path = self.dir.data_path().ok_or_else(|| Error::invalid("the backup holds no image"))?;
        let shown = escape(&path.display().to_string());
        let mut file = File::open(&path).map_err(|e| Error::io(format!("opening {shown}"), e))?.take(len);
        // A pair of sockets is a pipe that the end which reads can shut, whoever else still holds it.
        let (reader, mut writer) = UnixStream::pair().map_err(|e| Error::io("making a pipe", e))?;
        let end = reader.try_clone().map_err(|e| Error::io("making a pipe", e))?;
        let reader = File::from(OwnedFd::from(reader));
        std::thread::scope(|scope| {
            let feeder = scope.spawn(move || {
                let mut hashes = Hashes::default();
                let mut buffer = vec![0; 256 << 10];
                // What an earlier upload had sent already is progress once.
                let mut sent = 0u64;
                // The request fails where the pipe ends early: nothing that was cut off is taken for whole.
                while !progress.is_cancelled() {
                    let n = file.read(&mut buffer).map_err(|e| Error::io(format!("reading {shown}"), e))?;
                    let read = buffer.get(..n).unwrap_or_default();
                    if read.is_empty() || writer.write_all(read).is_err() {
                        break;
                    }
                    hashes.md5.update(read);
                    hashes.sha512.update(read);
                    sent = sent.saturating_add(to_u64(n));
                    progress.add(sent.saturating_sub(progress.bytes()));
                }
                Ok(hashes)
            });
            let answer = self.api.send(&Request {
                method: Method::PUT,
                body: Body::File("application/octet-stream", &reader, len),
                ..Request::get(Service::Image, &format!("images/{id}/file"))
            });
            let _ = end.shutdown(Shutdown::Both);
            let fed = feeder.join().map_err(|_| Error::invalid("the thread that reads the image ended early"))?;
            check_cancelled(&progress.cancel_flag())?;
            Ok((answer?, fed?))
        })
    }

    fn secret_and_image(&self, made: &mut Vec<Resource>, stop: &Stop) -> Result<()> {
        check_cancelled(stop)?;
        let secret = self.secret(made)?;
        check_cancelled(stop)?;
        let image = &self.plan.image;
        let mut body = json!({
            "name": image.name, "disk_format": image.disk_format, "container_format": image.container_format,
            "min_disk": image.min_disk, "min_ram": image.min_ram, "tags": image.tags, "visibility": image.visibility,
        });
        for (name, value) in &image.properties {
            body[name] = value.as_str().into();
        }
        for name in &image.key_properties {
            body[name] = secret.as_deref().into();
        }
        let id = self.create_image(&body, made)?;
        (self.tell)(&format!("image {id}: uploading {} bytes", image.size));
        self.upload(&id)?;
        if image.protected {
            let patch = json!([{"op": "replace", "path": "/protected", "value": true}]).to_string().into_bytes();
            let body = Body::Bytes("application/openstack-images-v2.1-json-patch", &patch);
            let path = format!("images/{id}");
            let request = Request { method: Method::PATCH, body, ..Request::get(Service::Image, &path) };
            self.api.send(&request)?.success("protecting the image")?;
        }
        Ok(())
    }

    /// Stores the secret, with the attributes that it had.
    fn secret(&self, made: &mut Vec<Resource>) -> Result<Option<String>> {
        let (Some(secret), Some(payload)) = (&self.plan.secret, self.dir.read_payload()?) else { return Ok(None) };
        let mut body = Map::new();
        body.insert("secret_type".into(), secret.secret_type.as_str().into());
        let texts = [
            ("name", &secret.name),
            ("algorithm", &secret.algorithm),
            ("mode", &secret.mode),
            ("expiration", &secret.expiration),
        ];
        for (name, value) in texts {
            if let Some(value) = value {
                body.insert(name.into(), value.as_str().into());
            }
        }
        if let Some(bits) = secret.bit_length {
            body.insert("bit_length".into(), bits.into());
        }
        let is_text = secret.content_type.as_deref().is_some_and(|t| t.starts_with("text/plain"));
        let plain = std::str::from_utf8(payload.expose()).ok().filter(|_| is_text);
        // JSON has room for the payload before its last brace, where it goes without a copy that nobody wipes.
        let encoded = Zeroizing::new(match plain {
            Some(text) => serde_json::to_string(text).map_err(|e| Error::corrupt("key", e.to_string()))?,
            None => format!(
                "\"{}\"",
                Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(payload.expose())).as_str()
            ),
        });
        match plain {
            Some(_) => body.insert("payload_content_type".into(), "text/plain".into()),
            None => {
                body.insert("payload_content_encoding".into(), "base64".into());
                body.insert("payload_content_type".into(), "application/octet-stream".into())
            }
        };
        let attributes = Value::Object(body).to_string();
        let start = attributes.strip_suffix('}').unwrap_or_default();
        let mut json = Zeroizing::new(Vec::with_capacity(start.len() + encoded.len() + 16));
        json.extend_from_slice(start.as_bytes());
        json.extend_from_slice(b",\"payload\":");
        json.extend_from_slice(encoded.as_bytes());
        json.push(b'}');
        let body = Body::Bytes("application/json", &json);
        let request = Request { method: Method::POST, body, ..Request::get(Service::KeyManager, "secrets") };
        let answer = self.api.send(&request)?.success("storing the secret")?;
        let href = text(&answer, "/secret_ref").trim_end_matches('/');
        let id = id(&href.rsplit('/').next().unwrap_or_default().into(), "")?;
        made.push(Resource { kind: ResourceKind::Secret, id: id.clone() });
        (self.tell)(&format!("secret {id}"));
        Ok(Some(id))
    }

    fn create_image(&self, body: &Value, made: &mut Vec<Resource>) -> Result<String> {
        let answer = post(self.api, Service::Image, "images", body)?.success("making the image")?;
        let id = id(&answer, "/id")?;
        made.push(Resource { kind: ResourceKind::Image, id: id.clone() });
        Ok(id)
    }

    /// Uploads the first `len` bytes of the image, once more where the connection broke or the service failed and has nothing of it.
    fn send_all(&self, id: &str, len: u64, progress: &Progress) -> Result<(Answer, Hashes)> {
        let mut time = Duration::from_secs(1);
        for _ in 1..UPLOADS {
            let e = match self.send_data(id, len, progress) {
                Ok((answer, _)) if matches!(answer.status, 429 | 500..) => answer.error("uploading the image"),
                Err(e) if e.kind() == ErrorKind::Io => e,
                other => return other,
            };
            pause(&self.progress.cancel_flag(), time)?;
            time *= 4;
            let path = ResourceKind::Image.path(id);
            let status = get(self.api, Service::Image, &path)?.success("looking at the image")?;
            if text(&status, "/status") != "queued" {
                return Err(e);
            }
            (self.tell)(&format!("uploading once more: {e}"));
        }
        self.send_data(id, len, progress)
    }

    /// Uploads the image, hashed on the way, and compares what the cloud has with what was recorded.
    fn upload(&self, id: &str) -> Result<()> {
        let (answer, hashes) = self.send_all(id, self.plan.image.size, self.progress)?;
        if answer.status == 415 {
            let e = answer.error("uploading the image");
            return Err(e.with_hint("this Glance does not take such a container as it is"));
        }
        if !answer.is_success() {
            return Err(answer.error("uploading the image"));
        }
        let (md5, sha512) = hashes.hex();
        let recorded = self.dir.backup.image.as_ref();
        let same = |rule: &'static str, had: Option<&str>, found: &str, place: &str| match had {
            Some(had) if had != found => {
                Err(Error::corrupt(rule, format!("{place} is {found}; it was {had} when it was fetched")))
            }
            _ => Ok(()),
        };
        let hash_of = |name: &str| {
            recorded.filter(|i| i.os_hash_algo.as_deref() == Some(name)).and_then(|i| i.os_hash_value.as_deref())
        };
        same("image.checksum", recorded.and_then(|i| i.checksum.as_deref()), &md5, "the md5 of the file")?;
        same("image.os_hash_value", hash_of("sha512"), &sha512, "the sha512 of the file")?;
        let image = get(self.api, Service::Image, &format!("images/{id}"))?.success("looking at the image")?;
        if text(&image, "/status") != "active" {
            let message =
                format!("the image is {} after the upload; active is wanted", escape(text(&image, "/status")));
            return Err(Error::new(ErrorKind::Io, message).with_rule("restore.status"));
        }
        let there = |field: &str| Some(text(&image, field)).filter(|hex| !hex.is_empty());
        let (checksum, hash) = (there("/checksum"), there("/os_hash_value"));
        same("image.checksum", checksum, &md5, "the md5 of what was sent")?;
        match (text(&image, "/os_hash_algo"), hash) {
            ("sha512", _) => same("image.os_hash_value", hash, &sha512, "the sha512 of what was sent"),
            (name, Some(found)) => same("image.os_hash_value", hash_of(name), found, "the hash in the cloud"),
            _ => Ok(()),
        }
    }

    /// Makes the volume, and waits until it is there.
    fn volume(&self, volume_type: Option<&str>, made: &mut Vec<Resource>, stop: &Stop) -> Result<()> {
        check_cancelled(stop)?;
        let image = made.iter().find(|m| m.kind == ResourceKind::Image).map(|m| m.id.clone());
        let volume = &self.plan.volume;
        let mut body = json!({"volume": {"name": volume.name, "size": volume.size, "imageRef": image}});
        if let Some(id) = volume_type {
            body["volume"]["volume_type"] = id.into();
        }
        let answer = post(self.api, Service::BlockStorage, "volumes", &body)?.success("making the volume")?;
        let id = id(&answer, "/volume/id")?;
        made.push(Resource { kind: ResourceKind::Volume, id: id.clone() });
        (self.tell)(&format!("volume {id}: waiting until Cinder has made it"));
        wait("making the volume", stop, || {
            let path = ResourceKind::Volume.path(&id);
            let answer = get(self.api, Service::BlockStorage, &path)?.success("looking at the volume")?;
            match text(&answer, "/volume/status") {
                "available" => Ok(Some(())),
                status if status.starts_with("error") => {
                    let error =
                        Error::new(ErrorKind::Io, "Cinder could not make the volume").with_rule("restore.volume");
                    Err(error.with_hint("is the volume type encrypted by LUKS, and large enough?"))
                }
                _ => Ok(None),
            }
        })
    }
}

/// The hashes that Glance makes too.
#[derive(Default)]
struct Hashes {
    md5: md5::Md5,
    sha512: sha2::Sha512,
}

impl Hashes {
    /// MD5 and SHA-512 in lower-case hex.
    fn hex(self) -> (String, String) {
        (hex::encode(self.md5.finalize()), hex::encode(self.sha512.finalize()))
    }
}

#[cfg(test)]
mod tests;
