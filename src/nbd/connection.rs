//! One connection from its first byte to its last.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use super::activity::Activity;
use super::handshake::{self, Negotiation, Outcome, Session, TlsState};
use super::service::Service;
use super::stream::Stream;
use super::transmission::{Connection, Summary};
use crate::limits::NBD_HANDSHAKE_TIME;

/// How long a goodbye (a TLS close) may take.
const GOODBYE: Duration = Duration::from_secs(1);

impl Service {
    /// Serves one client from the greeting on, until it leaves. A stream in memory will do: the handler can be driven
    /// with a script of bytes.
    ///
    /// # Errors
    /// The stream's own, and [`io::ErrorKind::InvalidData`] where the client broke the protocol during the handshake.
    /// Once the transmission phase began, whatever ends it is no error.
    pub fn serve_connection(&self, stream: &dyn Stream) -> io::Result<Summary> {
        self.serve_counted(stream, &Activity::default(), &format_args!("connection"))
    }

    /// As [`Service::serve_connection`]; `activity` is what the server sees of it, and `who` is
    /// the connection's name in the log.
    pub(super) fn serve_counted(
        &self,
        stream: &dyn Stream,
        activity: &Activity,
        who: &dyn fmt::Display,
    ) -> io::Result<Summary> {
        let outcome = self.talk(stream, activity, who);
        stream.close();
        outcome
    }

    fn talk(&self, stream: &dyn Stream, activity: &Activity, who: &dyn fmt::Display) -> io::Result<Summary> {
        stream.set_deadline(Some(Instant::now() + NBD_HANDSHAKE_TIME));
        let mut client = handshake::greet(stream)?;
        let multi_conn = self.max_connections > 1;
        let stopping = || self.is_stopping();
        let mut round =
            Negotiation { stream, export: &self.export, tls: TlsState::Off, multi_conn, stopping: &stopping };
        let Some(tls) = &self.tls else {
            return match round.run(&mut client)? {
                Outcome::Transmit(session) => Ok(self.transmit(stream, session, activity, who, "no TLS")),
                // Without a certificate STARTTLS is refused.
                Outcome::Aborted | Outcome::StartTls => Ok(Summary::default()),
            };
        };
        round.tls = TlsState::Required;
        if !matches!(round.run(&mut client)?, Outcome::StartTls) {
            return Ok(Summary::default());
        }
        let sealed = tls.accept(stream)?;
        let round = Negotiation { stream: &sealed, tls: TlsState::Active, ..round };
        let summary = match round.run(&mut client)? {
            Outcome::Transmit(session) => self.transmit(&sealed, session, activity, who, sealed.version()),
            Outcome::Aborted | Outcome::StartTls => Summary::default(),
        };
        sealed.set_deadline(Some(Instant::now() + GOODBYE));
        sealed.finish();
        Ok(summary)
    }

    fn transmit(
        &self,
        stream: &dyn Stream,
        session: Session,
        activity: &Activity,
        who: &dyn fmt::Display,
        tls: &str,
    ) -> Summary {
        let replies = if session.structured { "structured" } else { "simple" };
        self.log(format_args!("{who}: {tls}, {replies} replies"));
        stream.set_deadline(None);
        Connection::new(stream, self, session, activity).run()
    }
}
