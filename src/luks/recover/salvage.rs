//! What is left of a LUKS2 header that cryptsetup does not open: objects of the JSON area that break the rules are left out,
//! and the configuration is made anew. What opens is proved by the key's digest; where no checksum matches, cipher and place
//! of the data are not, and that is said.

use serde_json::{Map, Value, json};
use zerocopy::IntoBytes;

use super::{Overlay, binary, places, recovery};
use crate::io::ReadAt;
use crate::limits::{KEYSLOTS_MAX, LUKS2_KEYSLOTS_SIZE_MAX};
use crate::luks::metadata::{KeyslotKind, Metadata, Role};
use crate::luks::recovery::{Patch, Recovery};
use crate::luks::v2::HDR_BIN_LEN;
use crate::luks::{json as text, v2, validate};
use crate::num::{to_u64, to_usize};

/// Reads what is left of the first copy that has a keyslot; copies whose checksum matches go before others.
pub(super) fn open(source: &(impl ReadAt + ?Sized)) -> Option<(Metadata, Recovery)> {
    let copies = || places().filter_map(|(role, place)| Copy::read(source, role, place));
    let proved = copies().filter(|copy| copy.is_proved).find_map(|copy| copy.mend(source));
    proved.or_else(|| copies().filter(|copy| !copy.is_proved).find_map(|copy| copy.mend(source)))
}

/// A copy whose binary header and JSON text can be read.
struct Copy {
    role: Role,
    place: u64,
    header: Box<v2::BinaryHeader>,
    json: Value,
    is_proved: bool,
}

impl Copy {
    fn read(source: &(impl ReadAt + ?Sized), role: Role, place: u64) -> Option<Self> {
        let (header, is_right) = binary(source, role, place)?;
        let header = Box::new(header.filter(|_| is_right)?);
        let mut area = vec![0u8; to_usize(header.hdr_size.get().checked_sub(to_u64(HDR_BIN_LEN))?).ok()?];
        source.read_exact_at(&mut area, place.checked_add(to_u64(HDR_BIN_LEN))?).ok()?;
        let is_proved = header.verify(&area).is_ok();
        // Damage behind the text's end says nothing of the text.
        let json = text::parse_area(&area).ok().or_else(|| {
            let end = area.iter().position(|byte| *byte == 0)?;
            area.get_mut(end..)?.fill(0);
            text::parse_area(&area).ok()
        })?;
        Some(Self { role, place, header, json, is_proved })
    }

    fn mend(mut self, source: &(impl ReadAt + ?Sized)) -> Option<(Metadata, Recovery)> {
        let size = self.header.hdr_size.get();
        let mut missing = mend(&mut self.json, size)?;
        if !self.is_proved {
            missing.push(format!(
                "no checksum proves the {} header: cipher and place of the data may be wrong",
                self.role
            ));
        }
        let mut area = serde_json::to_vec(&self.json).ok()?;
        let len = to_usize(size.checked_sub(to_u64(HDR_BIN_LEN))?).ok()?;
        // A NUL follows the text.
        if area.len() >= len {
            return None;
        }
        area.resize(len, 0);
        self.header.checksum_alg = [0; 32];
        self.header.checksum_alg[..6].copy_from_slice(b"sha256");
        self.header.sign(&area).ok()?;
        let at = self.place.checked_add(to_u64(HDR_BIN_LEN))?;
        let patches = vec![Patch { at: self.place, bytes: self.header.as_bytes().to_vec() }, Patch { at, bytes: area }];
        let metadata = v2::read(&Overlay { source, patches: &patches }).ok()?;
        Some((metadata, recovery(missing.join("; "), 1, patches)))
    }
}

/// Leaves out of the JSON area what breaks the rules, and says what that was; `None` where no keyslot is left, and for a
/// reencryption, whose parts prove each other.
fn mend(json: &mut Value, hdr_size: u64) -> Option<Vec<String>> {
    let keeps_the_rules = |json: &Value| validate::validate(&mut json.clone(), hdr_size);
    let root = json.as_object_mut()?;
    let mut missing = Vec::new();
    let mut part = |name: &str| match root.insert(name.to_owned(), json!({})) {
        Some(Value::Object(part)) => part,
        _ => Map::new(),
    };
    let (slots, tokens) = (part("keyslots"), part("tokens"));
    let is_reencryption = |slot: &Value| slot.get("type").is_some_and(|kind| kind == "reencrypt");
    if slots.values().any(is_reencryption) {
        return None;
    }
    // Digests name keyslots that are not there yet.
    let digests = json.get("digests").cloned()?;
    refer_to(json, &digests, &[]);
    if keeps_the_rules(json).is_err() {
        mend_config(json, hdr_size, &slots);
        keeps_the_rules(json).ok()?;
        missing.push("the configuration contradicts the header, and is made anew".to_owned());
    }
    let mut kept: Vec<String> = Vec::new();
    let mut lost = Vec::new();
    for (id, slot) in slots {
        let mut tried = json.clone();
        tried.get_mut("keyslots")?.as_object_mut()?.insert(id.clone(), slot);
        kept.push(id.clone());
        refer_to(&mut tried, &digests, &kept);
        let is_right = kept.len() <= to_usize(u64::from(KEYSLOTS_MAX)).ok()? && keeps_the_rules(&tried).is_ok();
        if is_right {
            *json = tried;
        } else {
            kept.pop();
            lost.push(id);
        }
    }
    refer_to(json, &digests, &kept);
    if !keeps_the_rules(json).ok()?.keyslots.values().any(|slot| matches!(slot.kind, KeyslotKind::Luks2(_))) {
        return None;
    }
    missing.extend(said("keyslot", &lost, "used"));
    let mut lost = Vec::new();
    for (nth, (id, token)) in tokens.into_iter().enumerate() {
        let mut tried = json.clone();
        tried.get_mut("tokens")?.as_object_mut()?.insert(id.clone(), token);
        // As many as there may be keyslots: each costs a look at the whole area.
        if nth < to_usize(u64::from(KEYSLOTS_MAX)).ok()? && keeps_the_rules(&tried).is_ok() {
            *json = tried;
        } else {
            lost.push(id);
        }
    }
    missing.extend(said("token", &lost, "shown"));
    Some(missing)
}

fn said(what: &str, lost: &[String], how: &str) -> Option<String> {
    let names = lost.iter().map(|id| crate::error::escape(id)).collect::<Vec<_>>().join(", ");
    match lost {
        [] => None,
        [_] => Some(format!("{what} {names} is damaged, and not {how}")),
        _ => Some(format!("{what}s {names} are damaged, and not {how}")),
    }
}

/// Lets the digests name the keyslots that they named, as far as those are kept.
fn refer_to(json: &mut Value, digests: &Value, kept: &[String]) {
    let mut digests = digests.clone();
    for digest in digests.as_object_mut().into_iter().flat_map(Map::values_mut) {
        if let Some(slots) = digest.get_mut("keyslots").and_then(Value::as_array_mut) {
            slots.retain(|slot| slot.as_str().is_some_and(|slot| kept.iter().any(|id| id == slot)));
        }
    }
    if let Some(root) = json.as_object_mut() {
        root.insert("digests".to_owned(), digests);
    }
}

/// Sizes as the binary header, the keyslots and the data have them.
fn mend_config(json: &mut Value, hdr_size: u64, slots: &Map<String, Value>) {
    let decimal = |value: Option<&Value>| value.and_then(Value::as_str).and_then(|text| text.parse::<u64>().ok());
    let start = hdr_size.saturating_mul(2);
    let segments = json.get("segments").and_then(Value::as_object).into_iter().flat_map(Map::values);
    let data = segments.filter_map(|segment| decimal(segment.get("offset"))).min().filter(|data| *data > 0);
    let ends = slots.values().filter_map(|slot| {
        let area = slot.get("area")?;
        decimal(area.get("offset"))?.checked_add(decimal(area.get("size"))?)
    });
    // A detached header has its data at byte 0 of another file.
    let end = data.or_else(|| ends.max()).unwrap_or(start);
    let size = end.saturating_sub(start).min(LUKS2_KEYSLOTS_SIZE_MAX);
    let size = size.saturating_sub(size.checked_rem(4096).unwrap_or(0));
    let Some(root) = json.as_object_mut() else { return };
    let mut config = match root.remove("config") {
        Some(Value::Object(config)) => config,
        _ => Map::new(),
    };
    config.insert("json_size".to_owned(), hdr_size.saturating_sub(to_u64(HDR_BIN_LEN)).to_string().into());
    config.insert("keyslots_size".to_owned(), size.to_string().into());
    // Flags say how a volume is activated; requirements stay, since they say who may open it.
    config.retain(|name, value| name != "flags" || value.is_array());
    root.insert("config".to_owned(), config.into());
}
