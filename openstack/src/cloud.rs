//! A cloud that was logged in to: requests with a token that is renewed, repeated after failures that pass.

use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Response, StatusCode, Url};
use secrecy::ExposeSecret;
use zeroize::Zeroize;

use super::answer::{Answer, Body, Request, Service};
use super::catalog::Catalog;
use super::config::Settings;
use super::failure::{CONNECTING, inner};
pub(super) use super::failure::{Failure, passes, retry_after, transport};
use super::keystone::{self, Session};
use unluks::backup;
use unluks::error::{Error, ErrorKind, Result, counted, escape};
use unluks::limits::{CLOUD_ANSWER_MAX, CLOUD_RETRY_AFTER_MAX, CLOUD_SILENCE};

/// The first wait after a failure; each further one is twice as long, up to the last.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How often somebody who waits looks whether all was stopped.
const LOOK: Duration = Duration::from_millis(50);

/// How a cloud is used.
#[derive(Clone, Debug)]
pub struct Options {
    /// The name in clouds.yaml; without it that of `OS_CLOUD`, else the `OS_*` variables, else the only one there is.
    pub name: Option<String>,
    /// How many failures in a row are waited out.
    pub retries: u32,
    /// Stops what goes on when it is set.
    pub cancelled: Arc<AtomicBool>,
}

impl Default for Options {
    /// Eight retries, which wait a minute and a half together.
    fn default() -> Self {
        Self { name: None, retries: 8, cancelled: Arc::default() }
    }
}

/// A cloud that was logged in to.
pub struct Cloud {
    runtime: tokio::runtime::Runtime,
    http: reqwest::Client,
    settings: Settings,
    /// The token in use; a renewal replaces it.
    session: Mutex<Session>,
    options: Options,
}

impl Cloud {
    /// Logs in.
    ///
    /// No token is kept on the disk, nothing is asked; a browser is opened only for `auth_type: v3websso`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] where the configuration or the credentials are not good, or a certificate is not
    /// trusted; [`ErrorKind::Io`] where Keystone cannot be reached.
    pub fn connect(options: Options) -> Result<Self> {
        let settings = Settings::read(options.name.as_deref())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Error::io("starting the network runtime", e))?;
        let http = client(&settings)?;
        let login = block(&runtime, &options.cancelled, keystone::login(&http, &settings))?;
        let session = login.map_err(|failure| {
            let (Failure::Passing(e, _) | Failure::Final(e)) = failure;
            match (e.rule(), settings.notes.is_empty()) {
                // Whoever waived the check in vain must be told where it fails.
                ("cloud.certificate", false) => {
                    let hint = e.hint().map_or(String::new(), |hint| format!("{hint}; "));
                    let notes = settings.notes.join("; ");
                    e.with_hint(hint + &notes)
                }
                _ => e,
            }
        })?;
        if session.project.is_none() {
            let message = "the login is good, but for no project, and images and keys are a project's";
            return Err(Error::invalid(message).with_rule("cloud.project").with_hint("set project_name or project_id"));
        }
        Ok(Self { runtime, http, settings, session: Mutex::new(session), options })
    }

    /// What of the configuration was not obeyed, a line each.
    pub fn notes(&self) -> &[String] {
        &self.settings.notes
    }

    fn session(&self) -> std::sync::MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a backup says of the cloud.
    pub fn description(&self) -> backup::Cloud {
        let region = self.settings.region.clone();
        let region = region.or_else(|| self.endpoint(Service::Image).ok().and_then(|(_, region)| region));
        backup::Cloud { name: self.settings.name.clone(), region, project_id: self.session().project.clone() }
    }

    /// Sends a request and reads the whole answer. A GET is repeated after failures that pass.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where no answer can be had, or with the rule `cancelled` where all was stopped;
    /// [`ErrorKind::InvalidInput`] where the catalogue has no such service; [`ErrorKind::LimitExceeded`] for an answer
    /// that is too large. Any status is an answer, but that of a token which Keystone does not renew.
    pub fn send(&self, request: &Request<'_>) -> Result<Answer> {
        let mut backoff = Backoff::new(if request.method == reqwest::Method::GET { self.options.retries } else { 0 });
        loop {
            match self.send_once(request, &backoff) {
                Ok(answer) => return Ok(answer),
                Err(Failure::Final(e)) => return Err(e),
                Err(Failure::Passing(e, asked)) => backoff.wait(self, e, asked)?,
            }
        }
    }

    fn send_once(&self, request: &Request<'_>, backoff: &Backoff) -> std::result::Result<Answer, Failure> {
        let mut response = self.open(request)?;
        let status = response.status();
        let asked = retry_after(response.headers());
        let body = self.read_body(request.service, &mut response, CLOUD_ANSWER_MAX)?;
        let answer = Answer { service: request.service, status: status.as_u16(), body };
        if passes(status) && backoff.left > 0 {
            Err(Failure::Passing(answer.error("asking"), asked))
        } else {
            Ok(answer)
        }
    }

    /// Sends a request once and gives the answer's head. An expired token is renewed first.
    pub(super) fn open(&self, request: &Request<'_>) -> std::result::Result<Response, Failure> {
        let response = self.open_with_token(request)?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        // Glance says 401 as well when it cannot ask Keystone; then the renewal fails, and says why.
        self.renew()?;
        let response = self.open_with_token(request)?;
        match response.status() {
            // Keystone's middleware says 401, and not 403, where the credential's access rules leave a service out.
            StatusCode::UNAUTHORIZED if self.settings.auth_type.contains("application") => {
                let name = request.service.name();
                let message = format!("{name} refuses this application credential, whose token is new");
                Err(Failure::Final(Error::invalid(message).with_rule("cloud.access-rules").with_hint(format!(
                    "its access rules seem to leave {name} out: openstack application credential show, and make one with \
                     rules for {}, or without rules",
                    request.service.parts().0[0]
                ))))
            }
            StatusCode::UNAUTHORIZED => {
                let message = format!("{} refuses a token that Keystone has just given", request.service.name());
                Err(Failure::Passing(Error::new(ErrorKind::Io, message).with_rule("cloud.token"), None))
            }
            _ => Ok(response),
        }
    }

    fn open_with_token(&self, request: &Request<'_>) -> std::result::Result<Response, Failure> {
        let built = self.build(request).map_err(Failure::Final)?;
        let sent = self.block(async { self.http.execute(built).await }).map_err(Failure::Final)?;
        sent.map_err(|e| transport(request.service.name(), &e))
    }

    /// A request with the token that there is, whose answer is waited for while something else is: see [`Cloud::spawn`].
    ///
    /// # Errors
    /// As [`Cloud::send`] before anything is sent.
    pub(super) fn start(
        &self,
        request: &Request<'_>,
    ) -> Result<impl Future<Output = reqwest::Result<Response>> + Send + use<>> {
        let (http, built) = (self.http.clone(), self.build(request)?);
        Ok(async move { http.execute(built).await })
    }

    /// Does something whenever anything is waited for.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        what: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.runtime.spawn(what)
    }

    fn build(&self, request: &Request<'_>) -> Result<reqwest::Request> {
        let wrong = |what: &str| Error::invalid(format!("{what} cannot be sent in a header")).with_rule("cloud.header");
        let (mut url, _) = self.endpoint(request.service)?;
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(request.path.split('/'));
        }
        if !request.query.is_empty() {
            url.query_pairs_mut().extend_pairs(request.query);
        }
        let mut headers = HeaderMap::new();
        for (name, value) in request.headers {
            let value = HeaderValue::from_str(value).map_err(|_| wrong("a value"))?;
            headers.insert(HeaderName::from_static(name), value);
        }
        let mut token = HeaderValue::from_str(self.session().token.expose_secret()).map_err(|_| wrong("the token"))?;
        token.set_sensitive(true);
        headers.insert("x-auth-token", token);
        let builder = self.http.request(request.method.clone(), url).headers(headers);
        let builder = match request.body {
            Body::Empty => builder,
            Body::Json(json) => builder.header("content-type", "application/json").body(json.to_string()),
            Body::Bytes(media_type, bytes) => builder.header("content-type", media_type).body(bytes.to_vec()),
            Body::File(media_type, file, len) => {
                let file = file.try_clone().map_err(|e| Error::io("opening the upload once more", e))?;
                let stream = super::answer::stream(file, len, Arc::clone(&self.options.cancelled));
                let body = reqwest::Body::wrap_stream(stream);
                builder.header("content-type", media_type).header("content-length", len).body(body)
            }
        };
        builder.build().map_err(|e| Error::invalid(inner(&e)).with_rule("cloud.request"))
    }

    /// The address of a service with the version of its API, and its region.
    fn endpoint(&self, service: Service) -> Result<(Url, Option<String>)> {
        let catalog: Catalog = self.session().catalog.clone();
        catalog.endpoint(service, &self.settings)
    }

    /// Logs in again.
    fn renew(&self) -> std::result::Result<(), Failure> {
        let renewed = self.block(keystone::login(&self.http, &self.settings)).map_err(Failure::Final)?;
        let renewed = renewed.map_err(|failure| match failure {
            Failure::Final(e) => {
                Failure::Final(e.within("the token has expired, and cannot be renewed").with_rule("cloud.token"))
            }
            passing => passing,
        })?;
        *self.session() = renewed;
        Ok(())
    }

    /// Reads a body of at most `max` bytes.
    pub(super) fn read_body(
        &self,
        service: Service,
        response: &mut Response,
        max: usize,
    ) -> std::result::Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        while let Some(chunk) = self.block(response.chunk()).map_err(Failure::Final)?.map_err(|e| {
            let (Failure::Passing(e, _) | Failure::Final(e)) = transport(service.name(), &e);
            Failure::Passing(e, None)
        })? {
            if chunk.len() > max - body.len() {
                let message = format!("{}'s answer has more than {max} bytes", service.name());
                return Err(Failure::Final(Error::limit("cloud.answer", message)));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// Waits for something, but not longer than until all is stopped.
    pub(super) fn block<T>(&self, what: impl Future<Output = T>) -> Result<T> {
        block(&self.runtime, &self.options.cancelled, what)
    }

    pub(super) fn options(&self) -> &Options {
        &self.options
    }
}

fn block<T>(runtime: &tokio::runtime::Runtime, cancelled: &AtomicBool, what: impl Future<Output = T>) -> Result<T> {
    runtime.block_on(async {
        let stopped = async {
            while !cancelled.load(Ordering::Relaxed) {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            biased;
            done = what => Ok(done),
            () = stopped => Err(stopped_error()),
        }
    })
}

/// The error of something that the user stopped.
pub(super) fn stopped_error() -> Error {
    Error::cancelled()
}

/// How often and how long failures are waited out.
pub(super) struct Backoff {
    retries: u32,
    pub left: u32,
    next: Duration,
}

impl Backoff {
    pub fn new(retries: u32) -> Self {
        Self { retries, left: retries, next: FIRST_WAIT }
    }

    /// There was progress: all is forgiven.
    pub fn renew(&mut self) {
        *self = Self::new(self.retries);
    }

    /// Waits after a failure, as long as the service asked for; gives it back when there were too many.
    pub fn wait(&mut self, cloud: &Cloud, e: Error, asked: Option<Duration>) -> Result<()> {
        if self.left == 0 {
            return Err(match self.retries {
                0 => e,
                n => e.with_hint(format!("this was tried {}; try again later", counted(u64::from(n) + 1, "time"))),
            });
        }
        let until = Instant::now() + asked.map_or(self.next, |asked| asked.min(CLOUD_RETRY_AFTER_MAX));
        self.left -= 1;
        self.next = (self.next * 2).min(LONGEST_WAIT);
        while Instant::now() < until {
            if cloud.options.cancelled.load(Ordering::Relaxed) {
                return Err(stopped_error());
            }
            std::thread::sleep(LOOK.min(until.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }
}

/// A client that trusts whom the user's configuration says.
fn client(settings: &Settings) -> Result<reqwest::Client> {
    let mut builder = reqwest::Client::builder()
        // A redirect would take the token to whoever it names.
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECTING)
        .read_timeout(CLOUD_SILENCE)
        .tcp_keepalive(Duration::from_secs(60))
        .user_agent(concat!("unluks/", env!("CARGO_PKG_VERSION")));
    if let Some(path) = &settings.cacert {
        let wrong = |e: &str| Error::invalid(format!("{}: {e}", escape(path))).with_rule("cloud.cacert");
        let pem = std::fs::read(expanded(path)).map_err(|e| wrong(&e.to_string()))?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem);
        let certificates = certificates.map_err(|_| wrong("it holds no certificates in PEM"))?;
        if certificates.is_empty() {
            return Err(wrong("it holds no certificates in PEM"));
        }
        for certificate in certificates {
            builder = builder.add_root_certificate(certificate);
        }
    }
    if let Some((cert, key)) = &settings.cert {
        builder = builder.identity(identity(cert, key.as_deref())?);
    }
    if !settings.verify {
        builder = builder.danger_accept_invalid_certs(true);
    }
    builder.build().map_err(|e| Error::invalid(inner(&e)).with_rule("cloud.client"))
}

/// A file that the configuration names; `~` is the user's home.
fn expanded(path: &str) -> PathBuf {
    let home = path.strip_prefix("~/").and_then(|rest| Some(std::env::home_dir()?.join(rest)));
    home.unwrap_or_else(|| PathBuf::from(path))
}

/// The certificate that the client shows, and its key, in one file or in two.
fn identity(cert: &str, key: Option<&str>) -> Result<reqwest::Identity> {
    let mut pem = Vec::new();
    for (rule, path) in [("cloud.cert", Some(cert)), ("cloud.key", key)] {
        let Some(path) = path else { continue };
        let mut file = std::fs::read(expanded(path))
            .map_err(|e| Error::invalid(format!("{}: {e}", escape(path))).with_rule(rule))?;
        pem.append(&mut file);
        pem.push(b'\n');
    }
    let identity = reqwest::Identity::from_pem(&pem);
    pem.zeroize();
    identity.map_err(|_| {
        let message = format!("{}: a certificate and its key in PEM are wanted", escape(cert));
        Error::invalid(message).with_rule("cloud.cert").with_hint("name the key's file with key, or OS_KEY")
    })
}
