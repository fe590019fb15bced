//! Steps that change something in a cloud: they can be stopped, waited for, and taken back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Answer, Body, Cloud, Method, Request, Service};
use unluks::error::{Error, ErrorKind, Result, escape};
use unluks::limits::CLOUD_WAIT_MAX;

/// The microversion from which on Cinder tells a volume's `encryption_key_id`.
pub const KEY_ID_VERSION: &str = "volume 3.64";
/// How long a thing that cannot be deleted yet is tried again.
const BUSY: Duration = Duration::from_secs(120);

/// Somebody who is logged in to a cloud.
pub trait Api: Sync {
    /// Makes a request. An answer of any status is one.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where no answer came; [`ErrorKind::Unsupported`] where the cloud has no such service.
    fn send(&self, request: &Request<'_>) -> Result<Answer>;
}

impl Api for Cloud {
    fn send(&self, request: &Request<'_>) -> Result<Answer> {
        Self::send(self, request)
    }
}

/// Asks for JSON.
///
/// # Errors
/// As [`Api::send`].
pub fn get(api: &dyn Api, service: Service, path: &str) -> Result<Answer> {
    api.send(&Request { headers: headers(service), ..Request::get(service, path) })
}

/// Sends JSON.
///
/// # Errors
/// As [`Api::send`].
pub fn post(api: &dyn Api, service: Service, path: &str, body: &Value) -> Result<Answer> {
    let request = Request::get(service, path);
    api.send(&Request { method: Method::POST, headers: headers(service), body: Body::Json(body), ..request })
}

fn headers(service: Service) -> &'static [(&'static str, &'static str)] {
    match service {
        Service::BlockStorage => &[("accept", "application/json"), ("openstack-api-version", KEY_ID_VERSION)],
        _ => &[("accept", "application/json")],
    }
}

/// The text at a place of an answer, such as `/volume/status`.
pub fn text<'a>(json: &'a Value, pointer: &str) -> &'a str {
    json.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The id at a place of an answer.
///
/// # Errors
/// [`ErrorKind::Corrupt`] where there is none that may stand in an address.
pub fn id(json: &Value, pointer: &str) -> Result<String> {
    let id = text(json, pointer);
    if is_id(id) {
        Ok(id.to_owned())
    } else {
        Err(Error::corrupt("cloud.id", format!("the service answered \"{}\" for an id", escape(id))))
    }
}

/// Whether it may stand in an address as it is.
pub fn is_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= 64 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// What stops a run: a signal sets it.
pub type Stop = AtomicBool;

/// Refuses to go on once somebody stopped it.
///
/// # Errors
/// [`ErrorKind::Io`] with the rule `cancelled`.
pub fn check_cancelled(stop: &Stop) -> Result<()> {
    if stop.load(Ordering::Relaxed) { Err(Error::cancelled()) } else { Ok(()) }
}

/// Waits for a while.
///
/// # Errors
/// `cancelled`.
pub fn pause(stop: &Stop, time: Duration) -> Result<()> {
    let woken = Instant::now() + time;
    while Instant::now() < woken {
        check_cancelled(stop)?;
        std::thread::sleep(Duration::from_millis(50).min(time));
    }
    Ok(())
}

/// Asks again and again, ever more seldom, until there is something.
///
/// # Errors
/// The first error of `look`; `cancelled`; [`ErrorKind::LimitExceeded`] after [`CLOUD_WAIT_MAX`].
pub fn wait<T>(what: &str, stop: &Stop, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(250);
    while start.elapsed() < CLOUD_WAIT_MAX {
        check_cancelled(stop)?;
        if let Some(found) = look()? {
            return Ok(found);
        }
        self::pause(stop, pause)?;
        pause = (pause * 3 / 2).min(Duration::from_secs(10));
    }
    Err(Error::limit("cloud.wait", format!("{what} took more than {} s", CLOUD_WAIT_MAX.as_secs())))
}

/// A kind of thing that a run makes in a cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceKind {
    /// A secret of Barbican.
    Secret,
    /// An image of Glance.
    Image,
    /// A volume of Cinder.
    Volume,
    /// A snapshot of Cinder.
    Snapshot,
}

impl ResourceKind {
    /// The name, as the openstack client has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Image => "image",
            Self::Volume => "volume",
            Self::Snapshot => "volume snapshot",
        }
    }

    fn service(self) -> Service {
        match self {
            Self::Secret => Service::KeyManager,
            Self::Image => Service::Image,
            Self::Volume | Self::Snapshot => Service::BlockStorage,
        }
    }

    /// The path of one of them.
    pub fn path(self, id: &str) -> String {
        match self {
            Self::Secret => format!("secrets/{id}"),
            Self::Image => format!("images/{id}"),
            Self::Volume => format!("volumes/{id}"),
            Self::Snapshot => format!("snapshots/{id}"),
        }
    }
}

/// Something that this run made in the cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// What it is.
    pub kind: ResourceKind,
    /// Its id.
    pub id: String,
}

impl Resource {
    /// The command that deletes it.
    pub fn delete_command(&self) -> String {
        format!("openstack {} delete {}", self.kind.name(), self.id)
    }
}

/// Deletes what was made, the last first, and gives what remains all the same.
///
/// Each is waited for: a snapshot goes only when the volume that was made of it is gone. `again`, which a second signal
/// sets, stops it.
pub fn roll_back(api: &dyn Api, made: &[Resource], abort: &Stop) -> Vec<Resource> {
    made.iter().rev().filter(|thing| delete(api, thing, abort).is_err()).cloned().collect()
}

/// Deletes one thing, and waits until it is gone.
fn delete(api: &dyn Api, thing: &Resource, stop: &Stop) -> Result<()> {
    let (service, path) = (thing.kind.service(), thing.kind.path(&thing.id));
    let start = Instant::now();
    if thing.kind == ResourceKind::Volume {
        // Cinder drops a volume that has no place yet at once, and leaves the secret of its key behind.
        wait("deleting", stop, || {
            let answer = get(api, service, &path)?;
            let creating = answer.status == 200 && text(&answer.json()?, "/volume/status") == "creating";
            Ok((!creating || start.elapsed() > BUSY).then_some(()))
        })?;
    }
    wait("deleting", stop, || {
        let answer = api.send(&Request { method: Method::DELETE, ..Request::get(service, &path) })?;
        match answer.status {
            200 | 202 | 204 | 404 => Ok(Some(())),
            // What is still being made, or used by what is being deleted, is refused for a while.
            400 | 409 | 500..=599 if start.elapsed() < BUSY => Ok(None),
            _ => Err(answer.error("deleting")),
        }
    })?;
    if service != Service::BlockStorage {
        return Ok(());
    }
    wait("deleting", stop, || {
        let answer = get(api, service, &path)?;
        if answer.status == 404 {
            return Ok(Some(()));
        }
        let json = answer.success("deleting")?;
        if [text(&json, "/volume/status"), text(&json, "/snapshot/status")].iter().any(|s| s.starts_with("error")) {
            Err(Error::new(ErrorKind::Io, "Cinder failed to delete it"))
        } else {
            Ok(None)
        }
    })
}

/// `e`, with what is left in the cloud of this run.
pub fn with_remains(e: Error, made: &[Resource], remain: &[Resource]) -> Error {
    let left = match (made, remain) {
        ([], _) => return e,
        (_, []) => "what this run made in the cloud was deleted again".to_owned(),
        _ => {
            let commands: Vec<_> = remain.iter().map(Resource::delete_command).collect();
            format!("not all that this run made could be deleted: {}", commands.join("; "))
        }
    };
    let hint = e.hint().map_or(String::new(), |hint| format!("{hint}; "));
    e.with_hint(hint + &left)
}
