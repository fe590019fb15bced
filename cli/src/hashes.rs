//! `--hash`: which hashes are wanted, and how they are printed.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use unluks::decrypt::hash::{Algorithm, Hashed, Of};
use unluks::decrypt::target::is_same_file;
use unluks::{Error, Result};

use crate::args::DecryptArgs;
use crate::source::{Source, is_dash, shown};

/// A hash that the user asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    pub of: Of,
    pub algorithm: Algorithm,
}

/// Reads `sha256`, `plaintext:sha256` and `image:sha256`; without a prefix it is both.
pub fn parse(hashes: &[String]) -> Result<Vec<Wanted>> {
    let mut all: Vec<Wanted> = Vec::new();
    for text in hashes {
        let (of, name): (&[Of], &str) = match text.split_once(':') {
            None => (&[Of::Image, Of::Plaintext], text),
            Some(("plaintext", name)) => (&[Of::Plaintext], name),
            Some(("image", name)) => (&[Of::Image], name),
            Some((other, _)) => {
                let message =
                    format!("--hash {}: of what? plaintext: and image: are known", unluks::error::escape(other));
                return Err(Error::invalid(message));
            }
        };
        for of in of {
            let wanted = Wanted { of: *of, algorithm: name.parse()? };
            if !all.contains(&wanted) {
                all.push(wanted);
            }
        }
    }
    Ok(all)
}

/// Refuses a `--hash-file` that would do harm, before hours of work rather than after them.
pub fn check_file(args: &DecryptArgs, source: &Source) -> Result<()> {
    let Some(path) = &args.out.hash_file else { return Ok(()) };
    let refuse = |why: &str| Err(Error::invalid(format!("--hash-file {}: {why}", shown(path))));
    if is_dash(path) {
        return refuse("name a file; the hashes are printed anyway");
    }
    source.refuse_as_output(path)?;
    let full = full_name(path).map_err(|e| Error::io(format!("opening the folder of {}", shown(path)), e))?;
    if full.is_none() || path.is_dir() {
        return refuse("it is a folder");
    }
    let output = full_name(&args.output).ok().flatten();
    if !is_dash(&args.output) && (full == output || is_output(path, args)) {
        return refuse("it is the output itself");
    }
    match path.symlink_metadata() {
        Ok(_) if !args.out.force => {
            Err(Error::invalid(format!("{} is there already", shown(path))).with_hint("use --force to replace it"))
        }
        _ => Ok(()),
    }
}

/// A file's name with its folder's true name; `None` where it names no file.
fn full_name(path: &Path) -> std::io::Result<Option<PathBuf>> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = folder.canonicalize()?;
    Ok(path.file_name().map(|name| folder.join(name)))
}

/// Whether the name leads to the output, where both are there.
fn is_output(path: &Path, args: &DecryptArgs) -> bool {
    let output = Some(&args.output).filter(|p| p.is_file()).and_then(|p| File::open(p).ok());
    output.is_some_and(|f| is_same_file(&f, path).unwrap_or(false))
}

/// Prints the hashes, and writes them to `--hash-file`.
pub fn report(hashes: &[Hashed], args: &DecryptArgs, source: &Source) -> Result<()> {
    if hashes.is_empty() {
        return Ok(());
    }
    let more = source.segments.iter().map(|segment| segment.path.as_path());
    let images: Vec<&Path> = std::iter::once(args.source.image.as_path()).chain(more).collect();
    let text = lines(hashes, &images, &args.output);
    // The file comes first: whoever wanted it gets it, also where nobody reads what is printed.
    let written = args.out.hash_file.as_ref().map_or(Ok(()), |path| write_file(path, &text, args));
    // The plaintext has the standard output to itself.
    let printed = match is_dash(&args.output) {
        true => std::io::stderr().write_all(&text),
        false => std::io::stdout().write_all(&text),
    };
    written.and(printed.map_err(|e| Error::io("printing the hashes", e)))
}

fn write_file(path: &Path, text: &[u8], args: &DecryptArgs) -> Result<()> {
    // Somebody may have made a link of it meanwhile.
    if is_output(path, args) {
        return Err(Error::invalid(format!("--hash-file {}: it is the output itself", shown(path))));
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true).create_new(!args.out.force).truncate(true).mode(0o600);
    let file = options.open(path).and_then(|mut f| f.write_all(text).and_then(|()| f.sync_all()));
    file.map_err(|e| Error::io(format!("writing the hashes to {}", shown(path)), e))
}

/// The format of `sha256sum`; with several algorithms that of `sha256sum --tag`, which says which is which.
///
/// Each algorithm has its hashes of `images`, the files of the image, in their order.
fn lines(hashes: &[Hashed], images: &[&Path], output: &Path) -> Vec<u8> {
    let tagged = hashes.iter().any(|h| h.algorithm != hashes[0].algorithm);
    let mut text = Vec::new();
    let mut images = images.iter().cycle();
    for h in hashes {
        let path = match h.of {
            Of::Image => images.next().map_or(output, |path| *path),
            Of::Plaintext => output,
        };
        // A name is bytes, whatever they mean; those that would break a line have sha256sum's own escape.
        let name = path.as_os_str().as_bytes();
        let escape = |byte: &u8| match byte {
            b'\\' => b"\\\\".to_vec(),
            b'\n' => b"\\n".to_vec(),
            b'\r' => b"\\r".to_vec(),
            other => vec![*other],
        };
        let escaped: Vec<u8> = name.iter().flat_map(escape).collect();
        let mark: &[u8] = if escaped == name { b"" } else { b"\\" };
        let (algorithm, hex) = (h.algorithm.name().to_uppercase(), h.hex.as_bytes());
        let parts: &[&[u8]] = match tagged {
            true => &[mark, algorithm.as_bytes(), b" (", &escaped, b") = ", hex, b"\n"],
            false => &[mark, hex, b"  ", &escaped, b"\n"],
        };
        text.extend(parts.concat());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashed(of: Of, algorithm: Algorithm) -> Hashed {
        Hashed { of, algorithm, hex: "ab".into() }
    }

    #[test]
    fn a_bare_name_means_both_and_a_prefix_one() {
        assert_eq!(parse(&["sha256".into()]).unwrap().len(), 2);
        assert_eq!(parse(&["image:md5".into(), "image:md5".into()]).unwrap().len(), 1);
        assert!(parse(&["sha257".into()]).is_err() && parse(&["x:sha256".into()]).is_err());
    }

    #[test]
    fn lines_are_what_sha256sum_reads() {
        let one = [hashed(Of::Image, Algorithm::Sha256), hashed(Of::Plaintext, Algorithm::Sha256)];
        assert_eq!(lines(&one, &[Path::new("a.img")], Path::new("b\nc")), b"ab  a.img\n\\ab  b\\nc\n");
        let two = [hashed(Of::Image, Algorithm::Md5), hashed(Of::Plaintext, Algorithm::Sha256)];
        assert_eq!(lines(&two, &[Path::new("a")], Path::new("-")), b"MD5 (a) = ab\nSHA256 (-) = ab\n");
    }
}
