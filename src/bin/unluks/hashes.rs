//! `--hash`: which hashes are wanted, and how they are printed.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

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
    let output = Some(&args.output).filter(|p| p.is_file()).and_then(|p| File::open(p).ok());
    if *path == args.output || output.is_some_and(|f| is_same_file(&f, path).unwrap_or(false)) {
        return refuse("it is the output itself");
    }
    match path.symlink_metadata() {
        Ok(_) if !args.out.force => {
            Err(Error::invalid(format!("{} is there already", shown(path))).with_hint("use --force to replace it"))
        }
        _ => Ok(()),
    }
}

/// Prints the hashes, and writes them to `--hash-file`.
pub fn report(hashes: &[Hashed], args: &DecryptArgs, source: &Source) -> Result<()> {
    if hashes.is_empty() {
        return Ok(());
    }
    let more = source.segments.iter().map(|segment| segment.path.as_path());
    let images: Vec<&Path> = std::iter::once(args.source.image.as_path()).chain(more).collect();
    let text = lines(hashes, &images, &args.output);
    // The plaintext has the standard output to itself.
    let printed = match is_dash(&args.output) {
        true => std::io::stderr().write_all(text.as_bytes()),
        false => std::io::stdout().write_all(text.as_bytes()),
    };
    printed.map_err(|e| Error::io("printing the hashes", e))?;
    let Some(path) = &args.out.hash_file else { return Ok(()) };
    let mut options = OpenOptions::new();
    options.write(true).create(true).create_new(!args.out.force).truncate(true).mode(0o600);
    let file = options.open(path).and_then(|mut f| f.write_all(text.as_bytes()).and_then(|()| f.sync_all()));
    file.map_err(|e| Error::io(format!("writing the hashes to {}", shown(path)), e))
}

/// The format of `sha256sum`; with several algorithms that of `sha256sum --tag`, which says which is which.
///
/// Each algorithm has its hashes of `images`, the files of the image, in their order.
fn lines(hashes: &[Hashed], images: &[&Path], output: &Path) -> String {
    let tagged = hashes.iter().any(|h| h.algorithm != hashes[0].algorithm);
    let mut text = String::new();
    let mut images = images.iter().cycle();
    for h in hashes {
        let path = match h.of {
            Of::Image => images.next().map_or(output, |path| *path),
            Of::Plaintext => output,
        };
        let name = path.to_string_lossy();
        // sha256sum's own escape for names that would break a line.
        let escaped = name.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r");
        let mark = if escaped == name { "" } else { "\\" };
        text += &match tagged {
            true => format!("{mark}{} ({escaped}) = {}\n", h.algorithm.name().to_uppercase(), h.hex),
            false => format!("{mark}{}  {escaped}\n", h.hex),
        };
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
        assert_eq!(lines(&one, &[Path::new("a.img")], Path::new("b\nc")), "ab  a.img\n\\ab  b\\nc\n");
        let two = [hashed(Of::Image, Algorithm::Md5), hashed(Of::Plaintext, Algorithm::Sha256)];
        assert_eq!(lines(&two, &[Path::new("a")], Path::new("-")), "MD5 (a) = ab\nSHA256 (-) = ab\n");
    }
}
