//! The hashes that Glance gives an image, made on threads of their own while the image comes in.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use bytes::Bytes;
use digest::DynDigest;

use unluks::backup::ImageInfo;
use unluks::error::{Error, Result, escape};
use unluks::limits::CLOUD_PIECES_MAX;

/// The hash that is compared, if there is one.
pub(super) struct Hashes {
    lanes: Vec<Lane>,
}

struct Lane {
    field: &'static str,
    name: String,
    wanted: String,
    send: SyncSender<Bytes>,
    thread: JoinHandle<String>,
}

impl Hashes {
    /// Starts the one that counts: `os_hash_value`, as Glance itself advises. MD5, which is slower than most and the limit of
    /// a download, is made where Glance has nothing else, or nothing that is known here.
    pub fn start(image: &ImageInfo) -> Self {
        let md5 = image.checksum.clone().map(|hex| ("image.checksum", "md5".to_owned(), hex));
        let other = image.os_hash_algo.clone().zip(image.os_hash_value.clone());
        let other =
            other.map(|(name, hex)| ("image.os_hash_value", name, hex)).filter(|(_, name, _)| hasher(name).is_some());
        let lanes = other.or(md5).into_iter().filter_map(|(field, name, wanted)| {
            let mut hasher = hasher(&name)?;
            let (send, receive) = sync_channel::<Bytes>(CLOUD_PIECES_MAX);
            let thread = std::thread::spawn(move || {
                for bytes in receive {
                    hasher.update(&bytes);
                }
                hasher.hex()
            });
            Some(Lane { field, name, wanted, send, thread })
        });
        Self { lanes: lanes.collect() }
    }

    /// Whether there is none to compare with.
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Hashes what comes next.
    pub fn take(&self, bytes: &Bytes) {
        for lane in &self.lanes {
            let _ = lane.send.send(bytes.clone());
        }
    }

    /// Compares, and gives the names of the hashes that were.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](unluks::ErrorKind::Corrupt) with the field of Glance's that does not match.
    pub fn compare(self) -> Result<Vec<String>> {
        let mut same = Vec::new();
        for lane in self.lanes {
            drop(lane.send);
            let found = lane.thread.join().map_err(|_| Error::invalid("a hash thread ended early"))?;
            if found != lane.wanted {
                let message =
                    format!("the {} of what came is {found}; Glance gives {}", lane.name, escape(&lane.wanted));
                return Err(Error::corrupt(lane.field, message));
            }
            same.push(lane.name);
        }
        Ok(same)
    }
}

/// A hash under way.
enum Hasher {
    Portable(Box<dyn DynDigest + Send>),
    /// SHA-384 and SHA-512 of the library that TLS brings in any case: an eighth faster than `sha2` on CPUs without
    /// instructions for them, and Glance's own default is what a download waits for.
    AwsLc(aws_lc_rs::digest::Context),
}

impl Hasher {
    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Portable(hasher) => hasher.update(bytes),
            Self::AwsLc(hasher) => hasher.update(bytes),
        }
    }

    fn hex(self) -> String {
        match self {
            Self::Portable(hasher) => hex::encode(hasher.finalize()),
            Self::AwsLc(hasher) => hex::encode(hasher.finish()),
        }
    }
}

/// A hash by the name that Python's hashlib has for it, which is what Glance is configured with.
fn hasher(name: &str) -> Option<Hasher> {
    let fast = |algorithm| Some(Hasher::AwsLc(aws_lc_rs::digest::Context::new(algorithm)));
    let portable: Box<dyn DynDigest + Send> = match name {
        "md5" => Box::new(md5::Md5::default()),
        "sha1" => Box::new(sha1::Sha1::default()),
        "sha224" => Box::new(sha2::Sha224::default()),
        "sha256" => Box::new(sha2::Sha256::default()),
        "sha384" => return fast(&aws_lc_rs::digest::SHA384),
        "sha512" => return fast(&aws_lc_rs::digest::SHA512),
        "sha3_224" => Box::new(sha3::Sha3_224::default()),
        "sha3_256" => Box::new(sha3::Sha3_256::default()),
        "sha3_384" => Box::new(sha3::Sha3_384::default()),
        "sha3_512" => Box::new(sha3::Sha3_512::default()),
        "blake2b" => Box::new(blake2::Blake2b512::default()),
        "blake2s" => Box::new(blake2::Blake2s256::default()),
        _ => return None,
    };
    Some(Hasher::Portable(portable))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(algorithm: &str, hash: &str) -> ImageInfo {
        let answer = serde_json::json!({
            "id": "b5978217-1f6b-437c-8297-83365ec4984a",
            "checksum": "900150983cd24fb0d6963f7d28e17f72",
            "os_hash_algo": algorithm,
            "os_hash_value": hash,
        });
        crate::shapes::image(&answer).unwrap()
    }

    fn compare(image: &ImageInfo, parts: &[&'static str]) -> Result<Vec<String>> {
        let hashes = Hashes::start(image);
        parts.iter().for_each(|part| hashes.take(&Bytes::from_static(part.as_bytes())));
        hashes.compare()
    }

    #[test]
    fn the_stronger_hash_is_compared_and_md5_where_nothing_else_is_there() {
        // "abc" of FIPS 180-4 and RFC 1321.
        let right = image("sha256", "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD");
        assert_eq!(compare(&right, &["a", "", "bc"]).unwrap(), ["sha256"]);
        let e = compare(&image("sha256", "00"), &["abc"]).unwrap_err();
        assert_eq!((e.kind(), e.rule()), (unluks::ErrorKind::Corrupt, "image.os_hash_value"));
        assert_eq!(compare(&right, &["abd"]).unwrap_err().rule(), "image.os_hash_value");
        let mut old = right;
        old.os_hash_value = None;
        assert_eq!(compare(&old, &["abc"]).unwrap(), ["md5"]);
        assert_eq!(compare(&old, &["abd"]).unwrap_err().rule(), "image.checksum");
    }

    #[test]
    fn a_hash_that_is_not_known_is_not_said_to_be_right() {
        assert_eq!(compare(&image("whirlpool-9", "00"), &["abc"]).unwrap(), ["md5"]);
    }
}
