//! What [`super::files`] promises, on a real disk.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use super::files::*;
use crate::types::failure::{ErrorCode, Failure};

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).expect("metadata").mode() & 0o777
}

#[test]
fn replacing_leaves_only_the_new_content_and_no_litter() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("flm.toml");
    replace(&path, b"old", Audience::Everyone).expect("writes");
    replace(&path, b"new", Audience::Owner).expect("replaces");
    assert_eq!(read_to_string(&path).expect("reads"), "new");
    assert_eq!(mode_of(&path), 0o600);
    assert_eq!(fs::read_dir(folder.path()).expect("lists").count(), 1);
}

#[test]
fn the_end_of_a_file_begins_with_a_line_and_facts_tell_kind_and_mode() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("log");
    replace(&path, b"one\ntwo\nthree\n", Audience::Owner).expect("writes");
    assert_eq!(read_tail(&path, 100).expect("reads"), b"one\ntwo\nthree\n");
    assert_eq!(read_tail(&path, 8).expect("reads"), b"three\n");
    let told = facts(&path).expect("looks").expect("is there");
    assert_eq!((told.kind, told.mode, told.size), (FileKind::File, 0o600, 14));
    assert_eq!(facts(folder.path()).expect("looks").map(|f| f.kind), Some(FileKind::Folder));
    assert_eq!(facts(&path.join("below a file")).expect("looks"), None);
}

#[test]
fn a_stamp_tells_writing_replacing_and_turning_a_link() {
    let folder = tempfile::tempdir().expect("folder");
    let (path, other) = (folder.path().join("flm.toml"), folder.path().join("other"));
    assert_eq!(stamp(&path).expect("looks"), None);
    replace(&path, b"old", Audience::Owner).expect("writes");
    let first = stamp(&path).expect("looks");
    assert_eq!(stamp(&path).expect("looks"), first);
    replace(&path, b"new", Audience::Owner).expect("replaces");
    let second = stamp(&path).expect("looks");
    assert_ne!(second, first);
    replace(&other, b"new", Audience::Owner).expect("writes");
    fs::remove_file(&path).expect("removes");
    std::os::unix::fs::symlink(&other, &path).expect("links");
    assert_ne!(stamp(&path).expect("looks"), second);
}

#[test]
fn a_replacement_that_fails_keeps_the_old_content() {
    let folder = tempfile::tempdir().expect("folder");
    let target = folder.path().join("occupied");
    fs::create_dir(&target).expect("folder in the way");
    fs::create_dir(target.join("content")).expect("not empty");
    let error = replace(&target, b"x", Audience::Owner).expect_err("a folder cannot be replaced");
    assert_eq!(error.path, target);
    assert!(target.join("content").is_dir());
    assert_eq!(fs::read_dir(folder.path()).expect("lists").count(), 1, "no temporary file stays");
}

#[test]
fn a_private_file_is_made_once_and_never_emptied() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("security.db");
    assert_eq!(ensure_private_file(&path).expect("makes"), Found::Created);
    assert_eq!(mode_of(&path), 0o600);
    replace(&path, b"kept", Audience::Owner).expect("writes");
    assert_eq!(ensure_private_file(&path).expect("finds"), Found::Existing);
    drop(open_private(&path).expect("opens"));
    assert_eq!(read(&path).expect("reads"), b"kept");
}

#[test]
fn a_large_file_is_in_place_only_when_it_is_complete() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("export.csv");
    replace(&path, b"old", Audience::Everyone).expect("writes");
    let mut left = Replacement::begin(&path).expect("begins");
    left.write(b"half").expect("writes");
    drop(left);
    assert_eq!(read(&path).expect("reads"), b"old");
    let mut whole = Replacement::begin(&path).expect("begins");
    whole.write(b"a").and_then(|()| whole.write(b"b")).expect("writes");
    whole.finish().expect("finishes");
    assert_eq!((read(&path).expect("reads").as_slice(), mode_of(&path)), (&b"ab"[..], 0o600));
    assert_eq!(fs::read_dir(folder.path()).expect("lists").count(), 1, "no temporary file stays");
}

#[test]
fn wide_folders_are_narrowed_and_told() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("a/b");
    assert_eq!(private_dir(&path).expect("makes"), None);
    assert_eq!(mode_of(&path), 0o700);
    fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("widens");
    let report = private_dir(&path).expect("repairs").expect("tells");
    assert!(report.contains("0755") && report.contains("0700"), "{report}");
    assert_eq!(mode_of(&path), 0o700);
}

#[test]
fn a_wide_secret_is_narrowed_and_a_link_is_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("key");
    replace(&path, b"secret", Audience::Owner).expect("writes");
    assert!(read_private(&path, 100).expect("reads").repaired.is_none());
    fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("widens");
    let read = read_private(&path, 100).expect("reads");
    assert_eq!(read.content.as_slice(), b"secret");
    assert!(read.repaired.expect("tells").contains("0644"));
    assert_eq!(mode_of(&path), 0o600);

    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&path, &link).expect("links");
    let error = read_private(&link, 100).expect_err("links are refused");
    assert!(error.hint().contains("symbolic link"), "{}", error.hint());
    assert!(read_private(&path, 3).is_err(), "too large");
    assert!(read_private(folder.path(), 100).is_err(), "a folder");

    let pipe = folder.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("makes a pipe");
    let error = read_private(&pipe, 100).expect_err("refused without waiting for a writer");
    assert!(error.source.to_string().contains("regular file"), "{}", error.source);
}

#[test]
fn what_is_kept_stays_when_the_file_is_replaced() {
    let folder = tempfile::tempdir().expect("folder");
    let (file, kept, copied) = (folder.path().join("file"), folder.path().join("kept"), folder.path().join("copied"));
    replace(&file, b"before", Audience::Owner).expect("writes");
    keep_as(&file, &kept).expect("keeps");
    copy(&file, &copied).expect("copies");
    replace(&file, b"after", Audience::Owner).expect("writes");
    for name in [&kept, &copied] {
        assert_eq!((read(name).expect("reads").as_slice(), mode_of(name)), (b"before".as_slice(), 0o600));
    }
    assert!(keep_as(&file, &kept).is_err(), "nothing that is kept is written over");
    assert!(free_space(&file).expect("measures") > 0);
    assert_eq!(ownership(&file).expect("looks").map(|found| found.mode), Some(0o600));
    assert_eq!(ownership(&folder.path().join("none")).expect("looks"), None);
}

#[test]
fn errors_name_operation_path_and_cause() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("file");
    replace(&file, b"", Audience::Owner).expect("writes");
    let failure = Failure::from(private_dir(&file.join("home")).expect_err("a file is in the way"));
    assert_eq!(failure.code, ErrorCode::IoError);
    assert!(failure.message.contains("could not make") && failure.message.contains("home"), "{}", failure.message);
    assert!(failure.hint.expect("hint").contains("a file where a folder is needed"));
}

#[test]
fn read_only_and_full_disks_have_their_own_hints() {
    for (kind, expected) in [
        (io::ErrorKind::ReadOnlyFilesystem, "read-only file system"),
        (io::ErrorKind::StorageFull, "full"),
        (io::ErrorKind::PermissionDenied, "owner and mode"),
    ] {
        let failure = Failure::from(FileError::new("write", "/home/user/flm", io::Error::from(kind)));
        assert!(failure.hint.expect("hint").contains(expected), "{expected}");
    }
}

#[test]
fn nothing_but_a_file_is_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let inside = folder.path().join("folder");
    fs::create_dir(&inside).expect("makes");
    for place in
        [inside.as_path(), Path::new("/dev/null"), Path::new("/dev/stdout"), Path::new("/dev/new-file-of-a-test")]
    {
        let replaced = replace(place, b"x", Audience::Owner).expect_err("refused");
        let begun = Replacement::begin(place).expect_err("refused");
        assert_eq!(
            (replaced.source.kind(), begun.source.kind()),
            (io::ErrorKind::InvalidInput, io::ErrorKind::InvalidInput)
        );
    }
    assert!(!Path::new("/dev/new-file-of-a-test").exists());
}
