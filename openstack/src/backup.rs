//! Backups of Cinder's backup service: their own keys, and their objects where those are in the project's object store.
//!
//! A backup of an encrypted volume gets a *clone* of the key: another secret with the same payload. Cinder names it from
//! microversion 3.64 on, and when the volume is deleted its own secret goes, and the clone is the only one that is left.
//! Which backup an increment lies over, Cinder tells nobody; it is in the objects' metadata. With the Swift driver as it
//! is configured by default (`backup_swift_auth = per_user`) the objects are the user's own.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use md5::{Digest, Md5};
use serde_json::{Value, json};

use super::answer::{Request, Service};
use super::cloud::{Backoff, Cloud, Failure, passes, retry_after, transport};
use super::image::{FIXED_KEY, fixed_key};
use super::steps::{Api, KEY_ID_VERSION, Stop, get, id, is_id, post, text, wait};
use super::volume;
use unluks::backup::check_id;
use unluks::error::{Error, ErrorKind, Hint, Result, counted, escape, shown};
use unluks::limits::{CINDER_OBJECTS_MAX, CLOUD_ANSWER_MAX};
use unluks::num::to_u64;
use unluks::progress::Progress;

/// How many objects a listing gives at a time.
const PAGE: &str = "1000";

/// A backup as Cinder describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its id.
    pub id: String,
    /// The volume's id. The volume need not be there any more.
    pub volume: String,
    /// `available`, `error`, …
    pub status: String,
    /// When it was made.
    pub created_at: String,
    /// Whether it holds only what is not in another one.
    pub incremental: bool,
    /// GiB of the volume.
    pub size: Option<u64>,
    /// Where the objects are: a container of an object store, or a folder of the operator's share.
    pub container: Option<String>,
    /// The secret of its key; `None` where the volume was not encrypted, and where it is the fixed one.
    pub key_id: Option<String>,
}

impl Found {
    fn of(backup: &Value) -> Result<Self> {
        let owned = |pointer: &str| text(backup, pointer).to_owned();
        let (id, volume) = (owned("/id"), owned("/volume_id"));
        check_id("backup.id", &id)?;
        check_id("backup.volume_id", &volume)?;
        let optional = |pointer: &str| Some(owned(pointer)).filter(|text| !text.is_empty());
        Ok(Self {
            id,
            volume,
            status: owned("/status"),
            created_at: owned("/created_at"),
            incremental: backup.get("is_incremental").and_then(Value::as_bool).unwrap_or(false),
            size: backup.get("size").and_then(Value::as_u64),
            container: optional("/container"),
            key_id: optional("/encryption_key_id"),
        })
    }

    /// The id of the key's secret.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where it has none, with the rule `backup.plain` or `backup.fixed-key`.
    pub fn key(&self) -> Result<&str> {
        match self.key_id.as_deref() {
            None => Err(Error::unsupported(
                "backup.plain",
                "Cinder names no key of this backup: its volume was not encrypted, or by the cloud's fixed key",
            )
            .with_hint(
                "where its objects begin with a LUKS header all the same, ask whoever runs the cloud for fixed_key",
            )),
            Some(FIXED_KEY) => Err(fixed_key("backup.fixed-key")),
            Some(id) if is_id(id) => Ok(id),
            Some(id) => Err(Error::corrupt("backup.encryption_key_id", format!("found \"{}\"", escape(id)))),
        }
    }
}

/// Finds a backup by its id or its name.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] where there is none, or several have the name; what Cinder refused.
pub fn find(api: &dyn Api, wanted: &str) -> Result<Found> {
    if is_id(wanted) {
        let answer = get(api, Service::BlockStorage, &format!("backups/{wanted}"))?;
        if answer.status != 404 {
            let json = answer.success("looking for the backup")?;
            return Found::of(json.get("backup").unwrap_or(&json));
        }
    }
    let same: Vec<Found> = list(api, ("name", wanted), &|backup| text(backup, "/name") == wanted)?;
    match &same[..] {
        [only] => Ok(only.clone()),
        [] => Err(Error::invalid(format!("no backup has the id or name \"{}\"", escape(wanted)))
            .with_rule("backup.unknown")
            .with_hint("openstack volume backup list: is it another project's?")),
        _ => {
            let ids: Vec<_> = same.iter().take(8).map(|found| found.id.as_str()).collect();
            Err(Error::invalid(format!("{} are named \"{}\"", counted(same.len(), "backup"), escape(wanted)))
                .with_rule("backup.ambiguous")
                .with_hint(format!("name its id: {}", ids.join(", "))))
        }
    }
}

/// All backups of a volume, the oldest first.
///
/// # Errors
/// What Cinder refused.
pub fn of_volume(api: &dyn Api, volume: &str) -> Result<Vec<Found>> {
    let mut all = list(api, ("volume_id", volume), &|backup| text(backup, "/volume_id") == volume)?;
    all.sort_by(|a, b| a.created_at.cmp(&b.created_at));
    Ok(all)
}

/// Some releases pass over a filter: what does not fit is left out here.
fn list(api: &dyn Api, filter: (&str, &str), fits: &dyn Fn(&Value) -> bool) -> Result<Vec<Found>> {
    let request = Request {
        query: &[filter],
        headers: &[("accept", "application/json"), ("openstack-api-version", KEY_ID_VERSION)],
        ..Request::get(Service::BlockStorage, "backups/detail")
    };
    let json = api.send(&request)?.success("listing backups")?;
    let all = json.get("backups").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    all.iter().filter(|backup| fits(backup)).map(Found::of).collect()
}

/// A backup that is to be made.
#[derive(Clone, Debug)]
pub struct NewBackup<'a> {
    /// The volume, or the snapshot of one, as [`volume::find`] found it.
    pub of: &'a volume::Found,
    /// Its name.
    pub name: &'a str,
    /// Only what is not in the newest one of the volume.
    pub incremental: bool,
    /// Also of a volume that is in use, whose data is then as after a loss of power.
    pub force: bool,
}

impl NewBackup<'_> {
    /// Has Cinder make it, and waits until it is there; gives its id. What Cinder has begun stays, also where nobody waits
    /// for it any more: `tell` says so.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a volume in use without `force`; what Cinder refused; [`ErrorKind::Io`] with Cinder's
    /// own reason where it failed; `cancelled`.
    pub fn make(&self, api: &dyn Api, stop: &Stop, tell: &dyn Fn(&str)) -> Result<String> {
        let (info, status) = (&self.of.info, self.of.status.as_str());
        if info.snapshot.is_none() && status == "in-use" && !self.force {
            let message = "the volume is in use: a backup of it is as after a loss of power";
            return Err(Error::invalid(message).with_rule("backup.in-use").with_hint(Hint::ForceBackup));
        }
        let mut body =
            json!({"volume_id": info.id, "name": self.name, "incremental": self.incremental, "force": self.force});
        if let Some(snapshot) = &info.snapshot {
            body["snapshot_id"] = snapshot.as_str().into();
        }
        let answer = post(api, Service::BlockStorage, "backups", &json!({"backup": body}))?;
        let id = id(&answer.success("making a backup")?, "/backup/id")?;
        tell(&format!("backup {id}: waiting until Cinder has made it"));
        let made = wait("making the backup", stop, || {
            let json = get(api, Service::BlockStorage, &format!("backups/{id}"))?.success("looking at the backup")?;
            match text(&json, "/backup/status") {
                "available" => Ok(Some(())),
                status if status.starts_with("error") => {
                    let reason = text(&json, "/backup/fail_reason");
                    let mut message = "Cinder could not make the backup".to_owned();
                    if !reason.is_empty() {
                        message += &format!(": {}", escape(reason));
                    }
                    let e = Error::new(ErrorKind::Io, message).with_rule("backup.error");
                    Err(volume::with_reason(api, &id, e))
                }
                _ => Ok(None),
            }
        });
        if made.is_err() {
            tell(&format!("backup {id} is left as it is; openstack volume backup delete {id} deletes it"));
        }
        made.map(|()| id)
    }
}

/// An object of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its name in the container, with slashes.
    pub name: String,
    /// Bytes.
    pub bytes: u64,
    /// The MD5 that the store has of it, where it is one.
    md5: Option<String>,
}

impl Object {
    /// The end of its name, which tells it from its neighbours: the whole would be cut in a message.
    fn last(&self) -> &str {
        self.name.rsplit('/').next().unwrap_or_default()
    }
}

/// The objects of all backups of a volume in a container of the project's own; `None` where there is no object store, or
/// no such container, or nothing of the volume in it.
///
/// # Errors
/// Where the store answers what it should not.
pub fn objects(api: &dyn Api, container: &str, volume: &str) -> Result<Option<Vec<Object>>> {
    let prefix = format!("volume_{volume}/");
    let mut all: Vec<Object> = Vec::new();
    loop {
        let marker = all.last().map_or(String::new(), |last| last.name.clone());
        let query = &[("format", "json"), ("prefix", &prefix), ("limit", PAGE), ("marker", &marker)];
        let answer = match api.send(&Request { query, ..Request::get(Service::ObjectStore, container) }) {
            Ok(answer) if answer.status == 404 || answer.status == 403 => return Ok(None),
            Ok(answer) => answer.success("listing the backup's objects")?,
            Err(e) if e.rule().starts_with("catalog.") || e.rule() == "cloud.region" => return Ok(None),
            Err(e) => return Err(e),
        };
        let page = answer.as_array().map_or(&[][..], Vec::as_slice);
        if page.is_empty() {
            return Ok((!all.is_empty()).then_some(all));
        }
        for object in page {
            let name = text(object, "/name");
            let wrong = || Error::corrupt("object.name", format!("the store answered an object \"{}\"", escape(name)));
            let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
            if !name.starts_with(&prefix) || !name.split('/').all(plain) || *name <= *marker {
                return Err(wrong());
            }
            let bytes = object.get("bytes").and_then(Value::as_u64).ok_or_else(wrong)?;
            let md5 = Some(text(object, "/hash")).filter(|hash| hash.len() == 32).map(str::to_ascii_lowercase);
            all.push(Object { name: name.to_owned(), bytes, md5 });
        }
        if all.len() > CINDER_OBJECTS_MAX {
            let message = format!("the container has more than {CINDER_OBJECTS_MAX} objects of the volume");
            return Err(Error::limit("object.count", message));
        }
    }
}

/// Downloads an object to its place below `dir`, where it is not there already with the hash that the store has.
///
/// # Errors
/// [`ErrorKind::Io`] where it cannot be had or written; [`ErrorKind::Corrupt`] with the rule `object.hash` where the store
/// has another hash.
pub fn download(cloud: &Cloud, container: &str, object: &Object, dir: &Path, progress: &Progress) -> Result<()> {
    let path = dir.join(&object.name);
    let folder = path.parent().unwrap_or(dir);
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|e| Error::io(format!("making {}", shown(folder)), e))?;
    if let Ok(found) = path.symlink_metadata() {
        if !found.is_file() || found.len() != object.bytes {
            return Err(Error::invalid(format!("{} is there already, and is another file", shown(&path))));
        }
        // What an earlier run left may be damaged since; without a hash only its length tells.
        if object.md5.is_none() || Some(md5_of(&path)?) == object.md5 {
            progress.add(object.bytes);
            return Ok(());
        }
    }
    let mut temp = path.clone().into_os_string();
    temp.push(".unluks-part");
    let temp = PathBuf::from(temp);
    let mut backoff = Backoff::new(cloud.options().retries);
    loop {
        match once(cloud, container, object, &temp, progress) {
            Ok(()) => break,
            Err(Failure::Final(e)) => return Err(e),
            Err(Failure::Passing(e, asked)) => backoff.wait(cloud, e, asked)?,
        }
    }
    fs::rename(&temp, &path).map_err(|e| Error::io(format!("writing {}", shown(&path)), e))
}

/// The MD5 of a file.
fn md5_of(path: &Path) -> Result<String> {
    let failed = |e| Error::io(format!("reading {}", shown(path)), e);
    let mut hash = Md5::new();
    let mut file = BufReader::with_capacity(1 << 20, File::open(path).map_err(failed)?);
    loop {
        let read = file.fill_buf().map_err(failed)?;
        if read.is_empty() {
            break;
        }
        hash.update(read);
        let n = read.len();
        file.consume(n);
    }
    Ok(hex::encode(hash.finalize()))
}

fn once(
    cloud: &Cloud,
    container: &str,
    object: &Object,
    temp: &Path,
    progress: &Progress,
) -> std::result::Result<(), Failure> {
    let path = format!("{container}/{}", object.name);
    let mut response = cloud.open(&Request { headers: &[], ..Request::get(Service::ObjectStore, &path) })?;
    let status = response.status();
    if !status.is_success() {
        let asked = retry_after(response.headers());
        let body = cloud.read_body(Service::ObjectStore, &mut response, CLOUD_ANSWER_MAX)?;
        let answer = super::Answer { service: Service::ObjectStore, status: status.as_u16(), body };
        let e = answer.error("downloading an object of the backup");
        return Err(if passes(status) { Failure::Passing(e, asked) } else { Failure::Final(e) });
    }
    let failed = |e| Failure::Final(Error::io(format!("writing {}", shown(temp)), e));
    let mut open = OpenOptions::new();
    let mut file: File = open.write(true).create(true).truncate(true).mode(0o600).open(temp).map_err(failed)?;
    let (mut hash, mut len) = (Md5::new(), 0_u64);
    while let Some(chunk) =
        cloud.block(response.chunk()).map_err(Failure::Final)?.map_err(|e| match transport("Swift", &e) {
            Failure::Passing(e, _) | Failure::Final(e) => Failure::Passing(e, None),
        })?
    {
        len = len.saturating_add(to_u64(chunk.len()));
        if len > object.bytes {
            break;
        }
        hash.update(&chunk);
        file.write_all(&chunk).map_err(failed)?;
        if progress.is_cancelled() {
            return Err(Failure::Final(Error::cancelled()));
        }
    }
    if len != object.bytes {
        let message = format!("{} has {len} bytes; the store says {}", escape(object.last()), object.bytes);
        return Err(Failure::Passing(Error::new(ErrorKind::Io, message).with_rule("object.size"), None));
    }
    let found = hex::encode(hash.finalize());
    if object.md5.as_ref().is_some_and(|md5| *md5 != found) {
        let message = format!(
            "the MD5 of {} is {found}; the store has {}",
            escape(object.last()),
            object.md5.as_deref().unwrap_or_default()
        );
        return Err(Failure::Final(Error::corrupt("object.hash", message)));
    }
    file.sync_all().map_err(failed)?;
    progress.add(len);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::fake::Fake;

    const VOLUME: &str = "11111111-2222-4333-8444-555555555555";

    fn backup(id: &str, name: &str, key: Value) -> Value {
        json!({"id": id, "name": name, "volume_id": VOLUME, "status": "available", "size": 1, "is_incremental": id != "b-1",
            "created_at": format!("2026-01-0{}T00:00:00", &id[2..]), "container": "volumebackups", "encryption_key_id": key})
    }

    fn cloud() -> Fake {
        Fake::new(|asked| {
            Some(match asked {
                "GET backups/b-1" => (200, json!({"backup": backup("b-1", "one", "clone-1".into())})),
                "GET backups/b-3" => (200, json!({"backup": backup("b-3", "x", Value::Null)})),
                "GET backups/b-4" => (200, json!({"backup": backup("b-4", "x", FIXED_KEY.into())})),
                "GET backups/detail" => {
                    let other = json!({"id": "b-9", "name": "two", "volume_id": "other"});
                    (
                        200,
                        json!({"backups": [backup("b-2", "one", "clone-2".into()), backup("b-1", "two", "clone-1".into()), other]}),
                    )
                }
                _ => return None,
            })
        })
    }

    #[test]
    fn a_backup_leads_to_its_own_clone_of_the_key() {
        assert_eq!(find(&cloud(), "b-1").unwrap().key().unwrap(), "clone-1");
        assert_eq!(find(&cloud(), "one").unwrap().id, "b-2");
        let refused = |wanted: &str| {
            find(&cloud(), wanted).and_then(|found| found.key().map(drop)).unwrap_err().rule().to_owned()
        };
        assert_eq!(refused("two"), "backup.ambiguous");
        assert_eq!(refused("nothing"), "backup.unknown");
        assert_eq!(refused("b-3"), "backup.plain");
        assert_eq!(refused("b-4"), "backup.fixed-key");
        let all: Vec<_> = of_volume(&cloud(), VOLUME).unwrap().into_iter().map(|found| found.id).collect();
        assert_eq!(all, ["b-1", "b-2"], "another volume's is left out, and the oldest is first");
    }

    fn volume_of(status: &str, snapshot: Option<&str>) -> volume::Found {
        let (status, snapshot) = (status.to_owned(), snapshot.map(str::to_owned));
        let cloud = Fake::new(move |asked| {
            Some(match asked.rsplit_once(' ')?.1 {
                "volumes/11111111-2222-4333-8444-555555555555" => (
                    200,
                    json!({"volume": {"id": VOLUME, "status": status, "size": 1, "encrypted": true,
                    "encryption_key_id": "11111111-2222-4333-8444-666666666666"}}),
                ),
                "volumes" => (200, json!({"volumes": []})),
                "snapshots/77777777-2222-4333-8444-555555555555" => (
                    200,
                    json!({"snapshot": {"id": "77777777-2222-4333-8444-555555555555",
                    "volume_id": VOLUME, "size": 1, "status": "available"}}),
                ),
                _ => return None,
            })
        });
        volume::find(&cloud, snapshot.as_deref().unwrap_or(VOLUME)).unwrap()
    }

    #[test]
    fn a_backup_is_made_waited_for_and_left_where_it_fails() {
        let make = |of: &volume::Found, force: bool, last: &'static str| {
            let looks = std::sync::atomic::AtomicUsize::new(0);
            let cloud = Fake::new(move |asked| {
                Some(match asked {
                    "POST backups" => (202, json!({"backup": {"id": "b-1"}})),
                    "GET backups/b-1" => {
                        let is_first = looks.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
                        let status = if is_first { "creating" } else { last };
                        (200, json!({"backup": {"id": "b-1", "status": status, "fail_reason": "no space\u{7}"}}))
                    }
                    _ => return None,
                })
            });
            let said = Mutex::new(String::new());
            let new = NewBackup { of, name: "n", incremental: true, force };
            let made = new.make(&cloud, &Stop::new(false), &|line| *said.lock().unwrap() += line);
            let sent = cloud.sent.lock().unwrap().iter().find(|sent| !sent.is_empty()).cloned();
            (made, said.into_inner().unwrap(), sent.map(|sent| serde_json::from_slice::<Value>(&sent).unwrap()))
        };
        let (made, _, sent) = make(&volume_of("available", None), false, "available");
        assert_eq!(made.unwrap(), "b-1");
        let sent = sent.unwrap();
        assert_eq!((&sent["backup"]["volume_id"], &sent["backup"]["incremental"]), (&json!(VOLUME), &json!(true)));
        assert_eq!(sent["backup"]["snapshot_id"], Value::Null);
        let (made, _, sent) = make(&volume_of("in-use", None), false, "available");
        assert_eq!((made.unwrap_err().rule(), sent), ("backup.in-use", None));
        let (made, _, sent) = make(&volume_of("in-use", None), true, "available");
        assert_eq!((made.unwrap().as_str(), &sent.unwrap()["backup"]["force"]), ("b-1", &json!(true)));
        let snapshot = Some("77777777-2222-4333-8444-555555555555");
        let (_, _, sent) = make(&volume_of("in-use", snapshot), false, "available");
        assert_eq!(sent.unwrap()["backup"]["snapshot_id"].as_str(), snapshot);
        let (made, said, _) = make(&volume_of("available", None), false, "error");
        let e = made.unwrap_err();
        assert!(e.rule() == "backup.error" && e.message().contains("no space\\u{7}"), "{e}");
        assert!(said.contains("volume backup delete b-1"), "{said}");
    }

    #[test]
    fn objects_are_listed_by_pages_and_names_that_lead_elsewhere_are_refused() {
        let name = |end: &str| format!("volume_{VOLUME}/20260101/az_nova_backup_b{end}");
        let listing = |names: &[String]| {
            let list: Vec<_> = names.iter().map(|name| json!({"name": name, "bytes": 3, "hash": "x"})).collect();
            let asked = std::sync::atomic::AtomicUsize::new(0);
            let api = Fake::new(move |_| {
                let page = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                Some((200, json!(list.get(page).map_or(json!([]), |one| json!([one])))))
            });
            objects(&api, "volumebackups", VOLUME)
        };
        assert_eq!(listing(&[name("-00001"), name("_metadata")]).unwrap().unwrap().len(), 2);
        assert_eq!(listing(&[]).unwrap(), None);
        for bad in ["/../../x", "//x", ""] {
            assert_eq!(listing(&[format!("volume_{VOLUME}{bad}")]).unwrap_err().rule(), "object.name", "{bad}");
        }
        assert_eq!(listing(&[name("-2"), name("-1")]).unwrap_err().rule(), "object.name", "a listing that never ends");
        assert_eq!(objects(&Fake::new(|_| None), "c", VOLUME).unwrap(), None);
    }
}
