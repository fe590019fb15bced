//! Why there is no answer, and whether there may be one later.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

use unluks::error::{Error, ErrorKind, escape};
use unluks::limits::CLOUD_SILENCE;

/// How long a connection may take to be made.
pub(super) const CONNECTING: Duration = Duration::from_secs(15);

/// Why there is no answer.
pub(super) enum Failure {
    /// It may be better after a while: which the service may have named.
    Passing(Error, Option<Duration>),
    Final(Error),
}

/// Whether a status may be another one after a while.
pub(super) fn passes(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

/// How many seconds a service asks to wait. The other form, a date, is waited for as if nothing was said.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// What a failure of the way to a service is.
pub(super) fn transport(who: &str, e: &reqwest::Error) -> Failure {
    let words = inner(e);
    if words.contains("certificate") {
        let message = format!("{who}'s certificate is not trusted: {words}");
        let hint = "name the file of the authority that signed it: cacert in clouds.yaml, or OS_CACERT";
        return Failure::Final(Error::invalid(message).with_rule("cloud.certificate").with_hint(hint));
    }
    if e.is_builder() {
        return Failure::Final(Error::invalid(words).with_rule("cloud.request"));
    }
    let message = match (e.is_connect(), e.is_timeout()) {
        (true, true) => format!("{who} cannot be reached in {} s", CONNECTING.as_secs()),
        (true, false) => format!("{who} cannot be reached: {words}"),
        (false, true) => format!("{who} was silent for {} s", CLOUD_SILENCE.as_secs()),
        (false, false) => format!("the connection to {who} broke: {words}"),
    };
    Failure::Passing(Error::new(ErrorKind::Io, message).with_rule("cloud.connection"), None)
}

/// The innermost cause, which says most in least words, without the address.
pub(super) fn inner(e: &dyn std::error::Error) -> String {
    let mut innermost = e;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    one_line(innermost)
}

fn one_line(e: &dyn std::fmt::Display) -> String {
    escape(&e.to_string().split_whitespace().collect::<Vec<_>>().join(" "))
}
