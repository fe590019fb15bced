//! What one connection gives of an image, and others beside it where it is slow.

use bytes::Bytes;
use reqwest::Response;
use reqwest::header::{CONTENT_LENGTH, HeaderMap};

use super::parts::{Pace, Parts, Refusal, check_range};
use super::state::{State, split_at};
use crate::answer::{Answer, Request, Service};
use crate::cloud::Cloud;
use crate::failure::{Failure, passes, retry_after, transport};
use unluks::error::{Error, ErrorKind};
use unluks::limits::{CLOUD_ANSWER_MAX, CLOUD_PART};
use unluks::num::{at_most, to_u64};

/// How many connections at once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ways {
    One,
    /// Several, where one is slow.
    Several,
}

/// Why a connection ended.
pub(super) enum Stop {
    /// It was answered, and then cut off.
    Cut(Error),
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Takes as much as one connection gives, and the parts that are asked for beside it.
pub(super) fn connection(
    cloud: &Cloud,
    id: &str,
    state: &mut State<'_>,
    ways: &mut Ways,
) -> std::result::Result<(), Stop> {
    let path = format!("images/{id}/file");
    let range = format!("bytes={}-", state.at);
    let headers: &[_] = match state.at {
        0 => &[("accept", "application/json")],
        _ => &[("accept", "application/json"), ("range", &range)],
    };
    let mut response = cloud.open(&Request { headers, ..Request::get(Service::Image, &path) })?;
    let mut passed_by = match response.status().as_u16() {
        200 => state.at,
        // It has nothing that is there already.
        206 => check_range(response.headers(), state.at, state.size).map(|()| 0).map_err(Failure::Final)?,
        _ => return Err(Stop::Failed(refused(cloud, &mut response)?)),
    };
    if let Some(len) = number(response.headers(), CONTENT_LENGTH.as_str()) {
        // In whole, or from where it was asked for: both end with the image.
        if len != state.size - state.at + passed_by {
            let message = format!("Glance announces {len} bytes more; the image has {} bytes", state.size);
            return Err(Failure::Final(Error::corrupt("image.size", message).at(state.at)).into());
        }
    }
    if passed_by > 0 {
        *ways = Ways::One;
    }
    let (mut pace, mut beside, mut behind) = (Pace::start(), None, Bytes::new());
    loop {
        if let Some(parts) = beside.take_if(|parts: &mut Parts<'_>| parts.at == state.at) {
            // Where the store gives no parts, this connection goes on as if nothing had been asked.
            if take_parts(parts, state, ways)? {
                return Ok(());
            }
        }
        let chunk = match std::mem::take(&mut behind) {
            behind if !behind.is_empty() => Ok(Some(behind)),
            _ => pace.waiting(|| cloud.block(response.chunk())).map_err(Failure::Final)?,
        };
        let mut chunk = match chunk {
            Ok(Some(chunk)) => chunk,
            Ok(None) => break,
            Err(e) => {
                let (Failure::Passing(e, _) | Failure::Final(e)) = transport("Glance", &e);
                return Err(Stop::Cut(e.at(state.at)));
            }
        };
        // A store without ranges sends all of it again: what is there already is not taken twice.
        let known = at_most(passed_by, chunk.len());
        passed_by -= to_u64(known);
        let mut new = chunk.split_off(known);
        if let Some(parts) = &beside {
            behind = split_at(&mut new, parts.at - state.at);
        }
        if !new.is_empty() {
            state.take(new)?;
        }
        let first = state.at.saturating_add(CLOUD_PART);
        let is_worth_it = *ways == Ways::Several && first.saturating_add(CLOUD_PART) < state.size;
        if beside.is_none() && is_worth_it && pace.is_limit() {
            beside = Some(Parts::begin(cloud, &path, first, state.size).map_err(Failure::Final)?);
        }
    }
    if state.at < state.size {
        Err(Stop::Cut(Error::new(ErrorKind::Io, "Glance ended the answer too early").at(state.at)))
    } else {
        Ok(())
    }
}

/// Takes all parts; false where not even the first came.
fn take_parts(mut parts: Parts<'_>, state: &mut State<'_>, ways: &mut Ways) -> std::result::Result<bool, Stop> {
    let begun = state.at;
    loop {
        let part = match parts.next() {
            Ok(Some(part)) => part,
            Ok(None) => return Ok(true),
            Err(refusal) => {
                let (Refusal::NoParts(e) | Refusal::Cut(e)) = &refusal;
                if e.kind() == ErrorKind::Cancelled {
                    return Err(Stop::Failed(Failure::Final(Error::cancelled())));
                }
                if let Refusal::NoParts(_) = refusal {
                    *ways = Ways::One;
                }
                let (Refusal::NoParts(e) | Refusal::Cut(e)) = refusal;
                return if state.at == begun { Ok(false) } else { Err(Stop::Cut(e)) };
            }
        };
        part.into_iter().try_for_each(|bytes| state.take(bytes))?;
    }
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// What a status without data means.
fn refused(cloud: &Cloud, response: &mut Response) -> std::result::Result<Failure, Failure> {
    let status = response.status();
    let asked = retry_after(response.headers());
    let body = cloud.read_body(Service::Image, response, CLOUD_ANSWER_MAX)?;
    let answer = Answer { service: Service::Image, status: status.as_u16(), body };
    let e = match answer.status {
        204 => Error::corrupt("image.data", "Glance has no data of this image: it was lost in the store")
            .with_hint("ask whoever runs the cloud; what is left is the image's metadata"),
        403 => Error::invalid(format!("the image may be seen, but not downloaded ({})", answer.words()))
            .with_rule("image.download")
            .with_hint("the role is not enough: ask for member in its project in place of reader"),
        404 => Error::invalid("the image is gone: it was deleted meanwhile").with_rule("image.id"),
        416 => Error::corrupt("image.range", "Glance says that the image ends before this"),
        _ => answer.error("downloading the image"),
    };
    Ok(if passes(status) { Failure::Passing(e, asked) } else { Failure::Final(e) })
}
