//! The library's hints in the program's words: its flags and subcommands.

use unluks::Error;
use unluks::error::Hint;

/// An error in one line, with the flags that its hint means.
pub fn line(e: &Error) -> String {
    e.line(words)
}

fn words(hint: &Hint) -> String {
    let text = match hint {
        Hint::All(hints) => return hints.iter().map(words).collect::<Vec<_>>().join("; "),
        Hint::AllowTruncated => "get a whole copy, or take the whole sectors that are there with --allow-truncated",
        Hint::HeaderBackup => {
            "get a whole copy; a header backup goes with its image as --header; --allow-truncated takes it as it is"
        }
        Hint::OfflineLog => "with its log as --header, and the .org and .new beside that, both parts are opened",
        Hint::Recover => "--recover takes what is left of it",
        Hint::ForeignSegments => "if you trust the header, take it with --allow-foreign-segments",
        Hint::RaiseKdfMemory => "--max-kdf-memory raises the limit",
        Hint::RaiseKdfTime => "--max-kdf-time raises the limit",
        Hint::RaiseMaxSize => "if you know the disk to be that large, --max-size allows it",
        Hint::RawFormat => "--format raw reads the file as it is",
        Hint::VhdFormat => "--format vhd leaves them out",
        Hint::NamePartition => "choose one with --partition",
        Hint::NameVolume => "choose one with --volume",
        Hint::NameMembers => "name the other members with --with",
        Hint::NameParent => "name the parent with --with, if you trust the image",
        Hint::NameSnapshot => "open one with --snapshot",
        Hint::ForceOffset => "--force-offset takes it all the same",
        Hint::NameOffset => "--offset BYTES takes any place",
        Hint::WholeImage => "--offset 0 takes all of the image",
        Hint::Scan => "unluks scan finds headers anywhere",
        Hint::InspectAt => "unluks inspect with --offset opens it",
        Hint::DetachedHeader => "a detached header, or a header backup, is given with --header",
        Hint::NameKeyslot => "name the keyslot with --key-slot",
        Hint::AnyKeyslot => "without --key-slot all keyslots are tried",
        Hint::MorePassphrases => "give the other passphrase too, with --also-key-file or --also-passphrase-file",
        Hint::VolumeKey => "give the volume key with --volume-key-file",
        Hint::GuessKey => "is it hexlified, with a newline, or of another image? --key FILE tries the usual forms",
        Hint::NameSocket => "name the socket with --socket, in a folder that is there",
        Hint::KeyFilePart => "is it the right file? --keyfile-size takes a part of it",
        Hint::WholeKeyFile => "use --key-file for a key that is no line of text",
        Hint::BadSectors => "list such sectors and go on with --bad-sectors zero, skip or report",
        Hint::Force => "use --force to replace it",
        Hint::NoHeader => "for a detached header use --header, for a whole disk --partition or --offset",
        Hint::ResumeOrForce => "resume it with --resume, or discard it with --force",
        Hint::ForceTerminal => "redirect it, or use --force",
        Hint::ForceDevice => "use --force to overwrite it",
        Hint::Length => "write to a larger device, or a part with --length",
        Hint::Sparse => "make room, write elsewhere, or leave out --sparse never if zeroes may become holes",
        Hint::NoHash => "leave --hash out, or let the process have more threads",
        Hint::Resume => "go on with --resume",
        Hint::StartAgain => "start again without --resume, and with --force where something is there",
        Hint::TlsFolder => "--tls-certificates wants a folder with server-cert.pem, server-key.pem and ca-cert.pem",
        Hint::NameCloud => "name one with --cloud or OS_CLOUD, or set OS_AUTH_URL and the other variables",
        Hint::NameVolumeType => "name one that is encrypted by LUKS with --volume-type",
        Hint::ForceBackup => "--force makes one all the same; --snapshot makes one of a snapshot",
        Hint::NameBackup => "choose one by its id with --backup; unluks inspect lists them",
        other => return other.to_string(),
    };
    text.to_owned()
}
