//! The flags of `unluks serve` that say how, not what.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use unluks::limits::{NBD_CONNECTIONS, NBD_CONNECTIONS_PER_ADDRESS, NBD_THREADS};

/// The flags of `serve` that say how, not what.
///
/// Without a flag that says where, and without socket activation, the server listens on a private unix socket, and its
/// URI is printed.
#[derive(Debug, Default, clap::Args)]
pub struct ServeArgs {
    /// Listen on a unix socket at PATH, which only you can connect to
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Listen on a TCP address, such as 127.0.0.1:10809; may be repeated
    ///
    /// Or [::1]:10809; port 0 takes a free one.
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Vec<String>,
    /// Run a shell command with the server's URI in $uri, and stop when it ends
    ///
    /// Its exit code is this one's.
    #[arg(long, value_name = "SHELL COMMAND", conflicts_with = "command")]
    pub run: Option<String>,
    /// Write the process id into FILE once clients can connect
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub pid_file: Option<PathBuf>,
    /// Stop when the process that started this one ends
    #[arg(long, hide_short_help = true)]
    pub exit_with_parent: bool,
    /// The name of the export; clients that ask for no name find it too
    #[arg(long, value_name = "NAME", default_value = "", hide_short_help = true)]
    pub export_name: String,
    /// A description of the export, for clients that list exports
    #[arg(long, value_name = "TEXT", hide_short_help = true)]
    pub description: Option<String>,
    /// How many clients may be connected at the same time
    #[arg(long, value_name = "N", default_value_t = NBD_CONNECTIONS, value_parser = one_or_more, hide_short_help = true)]
    pub max_connections: usize,
    /// How many clients may be connected from one TCP address (of IPv6: from one /64) at the same time
    #[arg(long, value_name = "N", default_value_t = NBD_CONNECTIONS_PER_ADDRESS, value_parser = one_or_more, hide_short_help = true)]
    pub max_per_address: usize,
    /// Hang up on clients that were idle for this long [default: only where a new client finds no place, after 60s]
    #[arg(long, value_name = "TIME", value_parser = crate::time::duration, hide_short_help = true)]
    pub idle_timeout: Option<Duration>,
    /// How many threads may work for one connection
    #[arg(long, value_name = "N", default_value_t = NBD_THREADS, value_parser = one_or_more, hide_short_help = true)]
    pub threads: usize,
    /// Tell on standard error who connects and what goes wrong
    #[arg(long, short, hide_short_help = true)]
    pub verbose: bool,
    /// Require TLS, with server-cert.pem and server-key.pem (and ca-cert.pem) in DIR
    #[arg(long, value_name = "DIR", hide_short_help = true)]
    pub tls_certificates: Option<PathBuf>,
    /// Let in only clients with a certificate that ca-cert.pem signed
    #[arg(long, requires = "tls_certificates", hide_short_help = true)]
    pub tls_verify_peer: bool,
    /// Allow a TCP address that other machines can reach, without TLS: whoever connects reads the plaintext
    #[arg(long, hide_short_help = true)]
    pub insecure_listen: bool,
    /// Run a command with the server's URI in $uri, and stop when it ends, with its exit code
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

fn one_or_more(text: &str) -> std::result::Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be 1 or more".into()),
        Ok(n) => Ok(n),
        Err(_) => Err("must be a number".into()),
    }
}
