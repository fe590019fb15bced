//! `--hash`: which hashes are wanted, and how they are printed.

use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use unluks::decrypt::hash::{Hashed, Of, Wanted};
use unluks::{Error, Result};

use crate::args::DecryptArgs;
use crate::side_file;
use crate::source::{Source, is_dash};

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

/// Prints the hashes, and writes them to `--hash-file`.
pub fn report(hashes: &[Hashed], args: &DecryptArgs, source: &Source) -> Result<()> {
    if hashes.is_empty() {
        return Ok(());
    }
    let text = lines(hashes, &source.paths(), &args.output);
    // The file comes first: whoever wanted it gets it, also where nobody reads what is printed.
    let written = side_file::write("--hash-file", args.out.hash_file.as_deref(), &text, args);
    // The plaintext has the standard output to itself.
    let printed =
        if is_dash(&args.output) { std::io::stderr().write_all(&text) } else { std::io::stdout().write_all(&text) };
    written.and(printed.map_err(|e| Error::io("printing the hashes", e)))
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
        let parts: &[&[u8]] = if tagged {
            &[mark, algorithm.as_bytes(), b" (", &escaped, b") = ", hex, b"\n"]
        } else {
            &[mark, hex, b"  ", &escaped, b"\n"]
        };
        text.extend(parts.concat());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    use unluks::decrypt::hash::Algorithm;

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
