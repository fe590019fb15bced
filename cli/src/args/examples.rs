//! The examples below each `--help`. A test takes them for command lines.

pub const INSPECT: &str = "\
Examples:
  unluks inspect volume.img
  unluks inspect --json backups/*.img
  unluks inspect volume.img --inside --full --barbican-key volume.key
  unluks inspect --map disk.img";

pub const DECRYPT: &str = "\
Examples:
  unluks decrypt volume.img --barbican-key volume.key --output plain.raw --hash sha256
  unluks decrypt disk.qcow2 --partition 3 --key saved-somehow.txt --output plain.raw
  gunzip -c volume.img.gz | unluks decrypt - --key-file key --output - | tar -x";

pub const SCAN: &str = "\
Examples:
  unluks scan /dev/sdb
  unluks scan --json evidence.E01 damaged.img";

pub const TEST_KEY: &str = "\
Examples:
  unluks test-key volume.img --barbican-key volume.key
  unluks test-key --json --key-file key backups/*";

pub const VERIFY: &str = "\
Examples:
  unluks verify volume.img --barbican-key volume.key
  unluks verify volume.img --key-file key --report volume.html --sign minisign.key
  unluks verify --batch backups --reports reports --key-file key --strict";

pub const REPORT: &str = "\
Examples:
  unluks report verify reports/volume.json --public-key minisign.pub
  unluks report merge reports --list images.txt --csv";

pub const REPORT_VERIFY: &str = "\
Examples:
  unluks report verify reports/volume.json --public-key minisign.pub";

pub const REPORT_MERGE: &str = "\
Examples:
  unluks report merge reports --list images.txt --csv";

pub const HEADER: &str = "\
Examples:
  unluks header volume.img --output volume.header
  unluks header volume.img --key-file key --dump-volume-key volume.mk";

pub const RESTORE_PLAN: &str = "\
Examples:
  unluks restore-plan backup --cloud site >restore.sh
  unluks restore-plan cinder-tree --volume-type luks >restore.sh";

#[cfg(feature = "nbd")]
pub const SERVE: &str = "\
Examples:
  unluks serve volume.img --key-file key --socket plain.sock
  unluks serve volume.img --key-file key --run 'nbdcopy \"$uri\" plain.raw'
  unluks serve disk.E01 --partition 2 --key-file key --listen 127.0.0.1:10809";

#[cfg(feature = "openstack")]
pub const FETCH: &str = "\
Examples:
  unluks fetch image my-image --output backup --cloud site
  unluks fetch volume my-volume --output backup --make-image --cloud site";

#[cfg(feature = "openstack")]
pub const FETCH_IMAGE: &str = "\
Examples:
  unluks fetch image my-image --output backup --cloud site
  unluks fetch image my-image --output backup --decrypt plain.raw --no-ciphertext";

#[cfg(feature = "openstack")]
pub const FETCH_KEY: &str = "\
Examples:
  unluks fetch key 5c1fda39-6ae8-4b3e-9b2a-0f3f8f0ad2c5 --output volume.key --cloud site";

#[cfg(feature = "openstack")]
pub const FETCH_VOLUME: &str = "\
Examples:
  unluks fetch volume my-volume --output backup --make-image --cloud site";

#[cfg(feature = "openstack")]
pub const FETCH_BACKUP: &str = "\
Examples:
  unluks fetch backup nightly --output backup --cloud site
  unluks fetch backup my-volume --make --incremental --output backup --cloud site";

#[cfg(feature = "files")]
pub const LS: &str = "\
Examples:
  unluks ls disk.img  # the root directory; or, with partitions or volumes in it, what there is
  unluks ls -l disk.img /etc --key-file key  # with modes, owners, sizes and times
  unluks ls disk.img /vg/root/etc  # in a volume of LVM; in partition 2 it is /2/etc";

#[cfg(feature = "files")]
pub const CAT: &str = "\
Examples:
  unluks cat disk.img /etc/fstab --key-file key";

#[cfg(feature = "files")]
pub const CP: &str = "\
Examples:
  unluks cp disk.img /etc/fstab .  # one file
  unluks cp -r disk.img /home /etc out  # directories; out is there already
  unluks cp -r --preserve --links disk.img / out  # all of it, with modes, times and symbolic links";

#[cfg(feature = "files")]
pub const FIND: &str = "\
Examples:
  unluks find disk.img --name '*.conf' --kind f
  unluks find disk.img /home --key-file key";

#[cfg(feature = "files")]
pub const HASH: &str = "\
Examples:
  unluks hash disk.img /etc > sums; unluks cp -r disk.img / out; (cd out && sha256sum --check ../sums)";

#[cfg(feature = "mount")]
pub const MOUNT: &str = "\
Examples:
  mkdir at; unluks mount disk.img at --key-file key  # meanwhile, elsewhere: ls -l at/files; umount at";

pub const COMPLETIONS: &str = "\
Examples:
  unluks completions bash >/etc/bash_completion.d/unluks
  unluks completions fish >~/.config/fish/completions/unluks.fish";

pub const MAN: &str = "\
Examples:
  unluks man /usr/local/share/man/man1";

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory};

    use crate::args::Cli;

    fn check(command: &Command) -> usize {
        let mut seen = 0;
        for sub in command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help") {
            seen += check(sub);
            let help = sub.get_after_long_help().unwrap_or_else(|| panic!("{} has no examples", sub.get_name()));
            for line in help.to_string().lines().skip(1) {
                let (_, line) = line.split_once("unluks ").unwrap();
                // What a shell makes of it, as far as these lines need it.
                let quoted = line.split('\'').enumerate().flat_map(|(n, part)| match n % 2 {
                    0 => part.split_whitespace().take_while(|w| !w.starts_with(['|', '>', '#'])).collect::<Vec<_>>(),
                    _ => vec![part],
                });
                let parsed = Cli::command().try_get_matches_from(std::iter::once("unluks").chain(quoted));
                assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
                seen += 1;
            }
        }
        seen
    }

    #[test]
    fn each_example_is_a_command_line() {
        assert!(check(&Cli::command()) > 15);
    }
}
