//! What lies between a file and the bytes of a LUKS container, for reports: `locate` goes through it.

use std::fmt;

/// What one layer is, between a file and the LUKS container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum LayerKind {
    /// The file itself; the first one of a set.
    File,
    /// The disk in a file format.
    Format,
    /// A partition.
    Partition,
    /// An md array.
    Array,
    /// A volume of LVM.
    Volume,
}

impl LayerKind {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Format => "format",
            Self::Partition => "partition",
            Self::Array => "array",
            Self::Volume => "volume",
        }
    }
}

/// One layer between a file and the LUKS container.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct Layer {
    /// What it is.
    pub kind: LayerKind,
    /// What it is called: a format's name, a partition's number, `VG/LV`. Names are as the image has them, not escaped.
    pub name: String,
    /// How many bytes it has.
    pub size: u64,
}

impl Layer {
    /// A layer of that kind.
    pub fn new(kind: LayerKind, name: impl fmt::Display, size: u64) -> Self {
        Self { kind, name: name.to_string(), size }
    }
}
