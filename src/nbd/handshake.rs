//! The fixed newstyle handshake: greeting, option haggling, and what it led to.
//!
//! Nothing is buffered here: each read takes exactly the bytes of one message. So a byte that a man in the middle put
//! behind STARTTLS stays in the socket, and reaches the TLS handshake, which fails on it (CVE-2021-3716).

use std::io;

use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::service::Export;
use super::stream::{Stream, read_exact};
use super::wire::{self, OptionHeader, handshake_flag, info, len_usize, len32, option, reply, transmission_flag};
use crate::limits::{NBD_OPTION_DATA_MAX, NBD_OPTION_SKIP_MAX, NBD_PAYLOAD_MAX, NBD_STRING_MAX};

/// The smallest, the preferred and the largest block that the export advertises, in bytes.
const BLOCK_SIZES: [u32; 3] = [1, 4096, NBD_PAYLOAD_MAX];
/// The zeroes that an EXPORT_NAME ends with, unless both sides agreed to go without.
const ZEROES: usize = 124;

/// What client and server agreed on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Session {
    /// Replies come as structured chunks.
    pub structured: bool,
    /// The client chose `base:allocation`.
    pub base_allocation: bool,
}

/// Where one round of option haggling ended.
pub(super) enum Outcome {
    /// The client wants no export, or left.
    Aborted,
    /// STARTTLS was acknowledged: TLS bytes follow, and then a new round that knows nothing of this one.
    StartTls,
    /// The transmission phase begins.
    Transmit(Session),
}

/// Where a connection stands with TLS.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum TlsState {
    /// The server has no certificate.
    Off,
    /// The server insists on TLS, and the client has not asked for it yet.
    Required,
    /// The options arrive over TLS.
    Active,
}

/// The answers to the client's flags, and the number of options that it may still send.
pub(super) struct Client {
    fixed_newstyle: bool,
    no_zeroes: bool,
    options_left: u32,
}

/// Sends the greeting, and takes the client's flags.
///
/// # Errors
/// The stream's own, and [`io::ErrorKind::InvalidData`] for flags that the server did not offer.
pub(super) fn greet(stream: &dyn Stream) -> io::Result<Client> {
    let offered = handshake_flag::FIXED_NEWSTYLE | handshake_flag::NO_ZEROES;
    let greeting =
        wire::Greeting { nbdmagic: wire::NBDMAGIC.into(), ihaveopt: wire::IHAVEOPT.into(), flags: offered.into() };
    stream.write_all(greeting.as_bytes())?;
    let mut flags = U32::ZERO;
    read_exact(stream, flags.as_mut_bytes())?;
    match u16::try_from(flags.get()) {
        Ok(flags) if flags & !offered == 0 => Ok(Client {
            fixed_newstyle: flags & handshake_flag::FIXED_NEWSTYLE != 0,
            no_zeroes: flags & handshake_flag::NO_ZEROES != 0,
            options_left: crate::limits::NBD_OPTIONS_MAX,
        }),
        _ => Err(broken(format!("unknown client flags {flags:#x}"))),
    }
}

fn broken(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// One round of option haggling: over the plain stream, or over TLS.
pub(super) struct Negotiation<'a> {
    pub stream: &'a dyn Stream,
    pub export: &'a Export,
    pub tls: TlsState,
    /// More than one connection to the export is welcome.
    pub multi_conn: bool,
    /// Whether the server is about to stop.
    pub stopping: &'a dyn Fn() -> bool,
}

/// The client's choice so far. A new round starts with a new one: TLS forgets what was said before it.
#[derive(Default)]
struct Choice {
    structured: bool,
    /// The export name that `base:allocation` was chosen with.
    base_allocation: Option<Vec<u8>>,
}

/// Why an option cannot be granted: the reply type, and a text for people.
type Refusal = (u32, &'static str);

impl Negotiation<'_> {
    /// Answers options until the client goes on to transmission, to TLS, or away.
    ///
    /// # Errors
    /// The stream's own, and [`io::ErrorKind::InvalidData`] where the client broke the protocol in a way that can only
    /// be answered by hanging up.
    pub(super) fn run(&self, client: &mut Client) -> io::Result<Outcome> {
        let mut choice = Choice::default();
        loop {
            let Some((kind, data)) = self.next_option(client)? else { continue };
            let refusal = match kind {
                option::EXPORT_NAME => return self.export_name(&data, client, &choice).map(Outcome::Transmit),
                option::ABORT => {
                    // The client may be gone without waiting for it.
                    let _ = self.reply(kind, reply::ACK, &[]);
                    return Ok(Outcome::Aborted);
                }
                _ if !client.fixed_newstyle => Err((reply::ERR_INVALID, "only with fixed newstyle")),
                _ if (self.stopping)() => Err((reply::ERR_SHUTDOWN, "the server stops")),
                option::STARTTLS => match (self.tls, data.is_empty()) {
                    (TlsState::Off, _) => Err((reply::ERR_POLICY, "this server has no TLS certificate")),
                    (TlsState::Active, _) => Err((reply::ERR_INVALID, "TLS is in use already")),
                    (TlsState::Required, false) => Err((reply::ERR_INVALID, "STARTTLS takes no data")),
                    (TlsState::Required, true) => {
                        self.reply(kind, reply::ACK, &[])?;
                        return Ok(Outcome::StartTls);
                    }
                },
                _ if self.tls == TlsState::Required => Err((reply::ERR_TLS_REQD, "STARTTLS first")),
                option::LIST => self.list(kind, &data),
                option::INFO | option::GO => match self.describe(&data, choice.structured) {
                    Ok((name, infos)) => {
                        self.send_with_ack(kind, reply::INFO, &infos)?;
                        if kind == option::GO {
                            return Ok(Outcome::Transmit(choice.session(name)));
                        }
                        continue;
                    }
                    Err(refusal) => Err(refusal),
                },
                option::STRUCTURED_REPLY if !data.is_empty() => {
                    Err((reply::ERR_INVALID, "STRUCTURED_REPLY takes no data"))
                }
                option::STRUCTURED_REPLY => {
                    choice.structured = true;
                    Ok(Vec::new())
                }
                option::LIST_META_CONTEXT => self.meta_contexts(&data).map(|(_, queries)| {
                    // A wildcard for the whole namespace is for listing only.
                    let wanted = queries.is_empty() || queries.iter().any(|q| *q == b"base:" || is_base_allocation(q));
                    base_allocation_reply(kind, wanted, 0)
                }),
                option::SET_META_CONTEXT => self.set_meta_context(kind, &data, &mut choice),
                _ => Err((reply::ERR_UNSUP, "unknown option")),
            };
            match refusal {
                Ok(answer) => self.send_raw_with_ack(kind, answer)?,
                Err((code, text)) => self.reply(kind, code, text.as_bytes())?,
            }
        }
    }

    /// Reads one option. `None`: it was too big, and was answered.
    fn next_option(&self, client: &mut Client) -> io::Result<Option<(u32, Vec<u8>)>> {
        let mut head = OptionHeader::new_zeroed();
        read_exact(self.stream, head.as_mut_bytes())?;
        if head.magic.get() != wire::IHAVEOPT {
            return Err(broken("an option without its magic number"));
        }
        client.options_left = client.options_left.checked_sub(1).ok_or_else(|| broken("too many options"))?;
        let (kind, length) = (head.option.get(), head.length.get());
        if length <= NBD_OPTION_DATA_MAX {
            let mut data = vec![0; len_usize(length)];
            read_exact(self.stream, &mut data)?;
            return Ok(Some((kind, data)));
        }
        if length > NBD_OPTION_SKIP_MAX || kind == option::EXPORT_NAME {
            return Err(broken(format!("option {kind} with {length} bytes")));
        }
        let mut left = len_usize(length);
        let mut scrap = [0; 4096];
        while left > 0 {
            let part = left.min(scrap.len());
            read_exact(self.stream, &mut scrap[..part])?;
            left -= part;
        }
        if kind == option::ABORT {
            return Ok(Some((kind, Vec::new())));
        }
        let code = match self.tls {
            TlsState::Required if kind != option::STARTTLS => reply::ERR_TLS_REQD,
            _ => reply::ERR_TOO_BIG,
        };
        self.reply(kind, code, b"too much data")?;
        Ok(None)
    }

    /// EXPORT_NAME: it cannot be refused but by hanging up.
    fn export_name(&self, name: &[u8], client: &Client, choice: &Choice) -> io::Result<Session> {
        if self.tls == TlsState::Required {
            return Err(broken("EXPORT_NAME without TLS, which this server requires"));
        }
        if (self.stopping)() || !self.export.is_called(name) {
            return Err(broken("EXPORT_NAME of an unknown export"));
        }
        let mut answer = self.export.len().to_be_bytes().to_vec();
        answer.extend(self.transmission_flags(choice.structured).to_be_bytes());
        if !client.no_zeroes {
            answer.extend([0; ZEROES]);
        }
        self.stream.write_all(&answer)?;
        Ok(choice.session(name))
    }

    fn transmission_flags(&self, structured: bool) -> u16 {
        use transmission_flag as flag;
        flag::HAS_FLAGS
            | flag::READ_ONLY
            | flag::SEND_FLUSH
            | flag::SEND_CACHE
            | if structured { flag::SEND_DF } else { 0 }
            | if self.multi_conn { flag::CAN_MULTI_CONN } else { 0 }
    }

    fn list(&self, kind: u32, data: &[u8]) -> Result<Vec<u8>, Refusal> {
        if !data.is_empty() {
            return Err((reply::ERR_INVALID, "LIST takes no data"));
        }
        let name = self.export.name.as_bytes();
        let mut entry = len32(name.len()).to_be_bytes().to_vec();
        entry.extend(name);
        entry.extend(self.export.description.as_deref().unwrap_or_default().as_bytes());
        Ok(option_reply(kind, reply::SERVER, &entry))
    }

    /// The answer to INFO and GO: the name that was asked for, and the info replies' data.
    fn describe<'d>(&self, data: &'d [u8], structured: bool) -> Result<(&'d [u8], Vec<Vec<u8>>), Refusal> {
        let mut data = Fields(data);
        let name = data.string()?;
        let wanted = data.u16()?;
        let wanted = (0..wanted).map(|_| data.u16()).collect::<Result<Vec<_>, _>>()?;
        data.end()?;
        if !self.export.is_called(name) {
            return Err((reply::ERR_UNKNOWN, "no such export"));
        }
        let with_type = |kind: u16, payload: &[u8]| [&kind.to_be_bytes(), payload].concat();
        let flags = self.transmission_flags(structured).to_be_bytes();
        let mut infos = vec![with_type(info::EXPORT, &[&self.export.len().to_be_bytes()[..], &flags].concat())];
        if wanted.contains(&info::NAME) {
            infos.push(with_type(info::NAME, self.export.name.as_bytes()));
        }
        if let Some(text) = self.export.description.as_deref().filter(|_| wanted.contains(&info::DESCRIPTION)) {
            infos.push(with_type(info::DESCRIPTION, text.as_bytes()));
        }
        // As QEMU does: the sizes are told whether or not they were asked for.
        infos.push(with_type(info::BLOCK_SIZE, &BLOCK_SIZES.map(u32::to_be_bytes).concat()));
        Ok((name, infos))
    }

    /// The export name and the queries of LIST_META_CONTEXT and SET_META_CONTEXT.
    fn meta_contexts<'d>(&self, data: &'d [u8]) -> Result<(&'d [u8], Vec<&'d [u8]>), Refusal> {
        let mut data = Fields(data);
        let name = data.string()?;
        let count = data.u32()?;
        // Each query takes four bytes at least: the loop ends with the data, whatever was announced.
        let mut queries = Vec::new();
        for _ in 0..count {
            queries.push(data.string()?);
        }
        data.end()?;
        if self.export.is_called(name) { Ok((name, queries)) } else { Err((reply::ERR_UNKNOWN, "no such export")) }
    }

    fn set_meta_context(&self, kind: u32, data: &[u8], choice: &mut Choice) -> Result<Vec<u8>, Refusal> {
        // What was chosen before is void, even where this fails.
        choice.base_allocation = None;
        if !choice.structured {
            return Err((reply::ERR_INVALID, "STRUCTURED_REPLY first"));
        }
        let (name, queries) = self.meta_contexts(data)?;
        let chosen = queries.iter().any(|q| is_base_allocation(q));
        if chosen {
            choice.base_allocation = Some(name.to_vec());
        }
        Ok(base_allocation_reply(kind, chosen, wire::BASE_ALLOCATION_ID))
    }

    fn reply(&self, kind: u32, code: u32, data: &[u8]) -> io::Result<()> {
        self.stream.write_all(&option_reply(kind, code, data))
    }

    /// Sends a reply of type `code` for each of `items`, and the ACK behind them.
    fn send_with_ack(&self, kind: u32, code: u32, items: &[Vec<u8>]) -> io::Result<()> {
        self.send_raw_with_ack(kind, items.iter().flat_map(|item| option_reply(kind, code, item)).collect())
    }

    fn send_raw_with_ack(&self, kind: u32, mut answer: Vec<u8>) -> io::Result<()> {
        answer.extend(option_reply(kind, reply::ACK, &[]));
        self.stream.write_all(&answer)
    }
}

impl Choice {
    /// What holds for an export by this name: contexts that were chosen with another name do not.
    fn session(&self, name: &[u8]) -> Session {
        Session { structured: self.structured, base_allocation: self.base_allocation.as_deref() == Some(name) }
    }
}

fn is_base_allocation(query: &[u8]) -> bool {
    query == wire::BASE_ALLOCATION.as_bytes()
}

fn option_reply(kind: u32, code: u32, data: &[u8]) -> Vec<u8> {
    let head = wire::OptionReply {
        magic: U64::new(wire::OPTION_REPLY_MAGIC),
        option: kind.into(),
        reply: code.into(),
        length: len32(data.len()).into(),
    };
    [head.as_bytes(), data].concat()
}

/// The reply that names `base:allocation`, where it is `wanted`.
fn base_allocation_reply(kind: u32, wanted: bool, id: u32) -> Vec<u8> {
    if wanted {
        option_reply(kind, reply::META_CONTEXT, &[&id.to_be_bytes()[..], wire::BASE_ALLOCATION.as_bytes()].concat())
    } else {
        Vec::new()
    }
}

/// An option's data, field by field. Short, malformed and overlong data are one refusal: ERR_INVALID.
struct Fields<'a>(&'a [u8]);

const MALFORMED: Refusal = (reply::ERR_INVALID, "malformed option data");

impl<'a> Fields<'a> {
    fn u16(&mut self) -> Result<u16, Refusal> {
        let (value, rest) = U16::read_from_prefix(self.0).map_err(|_| MALFORMED)?;
        self.0 = rest;
        Ok(value.get())
    }

    fn u32(&mut self) -> Result<u32, Refusal> {
        let (value, rest) = U32::read_from_prefix(self.0).map_err(|_| MALFORMED)?;
        self.0 = rest;
        Ok(value.get())
    }

    /// A length and as many bytes: at most [`NBD_STRING_MAX`], and none of them NUL.
    fn string(&mut self) -> Result<&'a [u8], Refusal> {
        let len = len_usize(self.u32()?);
        let (string, rest) = self.0.split_at_checked(len).ok_or(MALFORMED)?;
        if len > NBD_STRING_MAX || string.contains(&0) {
            return Err((reply::ERR_INVALID, "a string has at most 4096 bytes and no NUL"));
        }
        self.0 = rest;
        Ok(string)
    }

    fn end(&self) -> Result<(), Refusal> {
        if self.0.is_empty() { Ok(()) } else { Err(MALFORMED) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_short_malformed_or_right() {
        assert_eq!(Fields(&[0, 0, 0, 2, b'a', b'b']).string(), Ok(&b"ab"[..]));
        for bad in [&[0, 0, 0][..], &[0, 0, 0, 2, b'a'], &[255, 255, 255, 255, 0], &[0, 0, 0, 1, 0]] {
            assert_eq!(Fields(bad).string().unwrap_err().0, reply::ERR_INVALID, "{bad:?}");
        }
        let long = |n: u32| [&n.to_be_bytes()[..], &vec![b'x'; len_usize(n)]].concat();
        assert!(Fields(&long(4096)).string().is_ok());
        assert!(Fields(&long(4097)).string().is_err());
        assert!(Fields(&[1]).end().is_err());
    }

    #[test]
    fn contexts_hold_for_the_name_they_were_chosen_with() {
        let choice = Choice { structured: true, base_allocation: Some(b"disk".to_vec()) };
        assert!(choice.session(b"disk").base_allocation);
        assert!(!choice.session(b"").base_allocation);
    }
}
