//! A report of an image: its header, where that was found, and what is there of its data.

use std::path::Path;

use super::Image;
use crate::error::escape;
use crate::format;
use crate::limits::LVM_VERSIONS_MAX;
use crate::luks::area;
use crate::luks::report::{Container, DataIn, FileInfo, Files, Group, GroupVersion, Report, Snapshot};
use crate::num::to_u64;
use crate::storage::lvm::{MetadataVersion, VolumeGroup};
use crate::volume::integrity_findings;

fn snapshot(snapshot: &format::Snapshot) -> Snapshot {
    let format::Snapshot { id, name, date, size, .. } = snapshot;
    Snapshot { id: id.clone(), name: name.clone(), date: *date, size: *size }
}

/// What the ring of a volume group's metadata still has, the newest first.
fn group(group: &VolumeGroup, notes: &mut Vec<String>) -> Group {
    let mut older = group.old_versions().unwrap_or_else(|e| {
        let name = escape(&group.name);
        notes.push(format!("lvm: older metadata of volume group {name} cannot be looked for: {e}"));
        Vec::new()
    });
    let left_out = older.len().saturating_sub(LVM_VERSIONS_MAX);
    older.truncate(LVM_VERSIONS_MAX);
    let older = older.into_iter().map(|MetadataVersion { name, seqno, time, description, .. }| GroupVersion {
        name,
        seqno,
        time,
        description,
    });
    let VolumeGroup { name, uuid, seqno, time, description, .. } = group;
    let current = GroupVersion { name: name.clone(), seqno: *seqno, time: *time, description: description.clone() };
    Group { uuid: uuid.clone(), current, older: older.collect(), left_out: to_u64(left_out) }
}

impl Image {
    /// All that the header says, what is there of its data, and what was found in the keyslots' areas: what
    /// `unluks inspect --json` prints. `path` names the image's file, and `header` that of a detached header.
    ///
    /// ```
    /// use unluks::{Image, OpenOptions, json};
    ///
    /// # fn main() -> unluks::Result<()> {
    /// # let path = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/openstack-volume.img"));
    /// let image = Image::open_path(path, &OpenOptions::default())?;
    /// let report = image.report(path, None);
    /// assert_eq!(report.data.state.name(), "to-end-of-file");
    /// println!("{}", json::pretty(&report)?);
    /// # Ok(()) }
    /// ```
    pub fn report(&self, path: &Path, header: Option<&Path>) -> Report<'_> {
        let file = self.file();
        let data_in = match &self.clusters {
            Some(clusters) => DataIn::Clusters { size: clusters.virtual_size(), missing: clusters.missing() },
            None => DataIn::File(self.data_file()),
        };
        let mut notes = self.notes.to_vec();
        let groups = self.groups.iter().map(|of| group(of, &mut notes)).collect();
        let container = self.file.as_ref().map(|_| Container {
            notes,
            groups,
            snapshots: self.snapshots.iter().map(snapshot).collect(),
            layers: self.layers.to_vec(),
            size: if self.clusters.is_some() { self.header.len() } else { self.data.len() },
        });
        let files = Files {
            image: FileInfo::new(path, &**file),
            container,
            header: header.map(|path| FileInfo::new(path, &*self.header)),
        };
        let mut found = area::findings(&*self.header, &self.metadata);
        if self.clusters.is_none() && self.data.pipe().is_none() {
            found.extend(integrity_findings(&self.metadata, &*self.data));
        }
        let mut report = Report::new(&self.metadata, files, data_in, found);
        if self.is_plain() {
            // There is no header that could be weak or wrong.
            report.findings.clear();
        }
        report
    }
}
