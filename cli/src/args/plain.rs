//! The command line's words for data without a header.

use clap::{Args, ValueEnum};

/// What a header would say, where there is none.
#[derive(Args, Default)]
#[command(next_help_heading = "Without a header (with --type plain; nothing proves a key then)")]
pub struct PlainArgs {
    /// What the data is
    #[arg(long = "type", value_enum, default_value = "luks", value_name = "TYPE", hide_short_help = true)]
    pub kind: Kind,
    /// The cipher, as dm-crypt spells it [default: aes-xts-plain64]
    #[arg(long, value_name = "CIPHER", hide_short_help = true)]
    pub cipher: Option<String>,
    /// The bits of the key [default: 256, or as many as the volume key has]
    #[arg(long, value_name = "BITS", hide_short_help = true)]
    pub key_size: Option<u32>,
    /// The bytes of an encryption sector [default: 512]
    #[arg(long, value_name = "BYTES", hide_short_help = true)]
    pub sector_size: Option<u32>,
    /// How a passphrase becomes the key: a hash, HASH:BYTES, or plain [default: sha256]
    #[arg(long, value_name = "HASH", hide_short_help = true)]
    pub plain_hash: Option<String>,
    /// Sectors of 512 bytes that are added to the IV's number: --skip of cryptsetup [default: 0]
    #[arg(long, value_name = "SECTORS", hide_short_help = true)]
    pub iv_offset: Option<u64>,
}

/// What the data is.
#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// A LUKS container, with a header
    #[default]
    Luks,
    /// dm-crypt alone, without a header, or a LUKS volume whose header is lost
    Plain,
}

impl PlainArgs {
    /// The first of the flags that are of no use with a header, where one was given.
    pub fn given(&self) -> Option<&'static str> {
        let flags = [
            ("--cipher", self.cipher.is_some()),
            ("--key-size", self.key_size.is_some()),
            ("--sector-size", self.sector_size.is_some()),
            ("--plain-hash", self.plain_hash.is_some()),
            ("--iv-offset", self.iv_offset.is_some()),
        ];
        flags.into_iter().find(|(_, given)| *given).map(|(flag, _)| flag)
    }
}
