use std::fs;

use model::sealing::{KeySource, SealKeyId};

use super::{FileKeys, HeadKey, Keys, verifies};

#[test]
fn the_first_start_makes_the_keys_for_their_owner_only_and_later_ones_find_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys");
    let first = Keys::of_folder(&path).expect("keys");
    let again = Keys::of_folder(&path).expect("keys");
    assert_eq!(first.sealing.current().expose(), again.sealing.current().expose());
    assert_eq!(first.heads.public(), again.heads.public());
    use std::os::unix::fs::PermissionsExt;
    let mode = |path| fs::metadata(path).expect("a file").permissions().mode() & 0o777;
    assert_eq!(mode(path.clone()), 0o700);
    for file in fs::read_dir(&path).expect("a folder") {
        assert_eq!(mode(file.expect("a file").path()), 0o600);
    }
    assert_eq!(fs::read_dir(&path).expect("a folder").count(), 2, "nothing is left beside");
}

#[test]
fn starts_at_once_go_on_with_one_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("secrets.key");
    let ids: Vec<_> = std::thread::scope(|scope| {
        let starts: Vec<_> =
            (0..8).map(|_| scope.spawn(|| FileKeys::open(&path).expect("keys"))).collect();
        starts.into_iter().map(|start| start.join().expect("a start").current().id).collect()
    });
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "{ids:?}");
}

#[test]
fn a_new_first_line_seals_and_the_older_ones_open_still() {
    let folder = tempfile::tempdir().expect("a folder");
    let [old, both] = ["old", "both"].map(|name| folder.path().join(name));
    let before = FileKeys::open(&old).expect("keys").current();
    let new = FileKeys::open(&both).expect("keys").current();
    let lines = [&both, &old].map(|path| fs::read_to_string(path).expect("text"));
    fs::write(&both, lines.concat()).expect("written");
    let ring = FileKeys::open(&both).expect("keys");
    assert_eq!(ring.current().id, new.id);
    assert_eq!(ring.key(before.id).expect("a key").expose(), before.expose());
    assert!(ring.key(SealKeyId([0; 16])).is_none());
}

#[test]
fn a_file_that_others_may_read_or_that_holds_something_else_is_refused_with_the_fix() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("secrets.key");
    FileKeys::open(&path).expect("keys");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("a mode");
    let open = FileKeys::open(&path).expect_err("a refusal").to_string();
    assert!(open.contains("chmod 600"), "{open}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
    for bad in ["", "# nothing\n", "AAAA\n", "no base64\n"] {
        fs::write(&path, bad).expect("written");
        assert!(FileKeys::open(&path).is_err(), "{bad:?}");
        assert!(HeadKey::open(&path).is_err(), "{bad:?}");
    }
    let shown = format!("{:?}", Keys::of_folder(&folder.path().join("k")).expect("keys"));
    let text = fs::read_to_string(folder.path().join("k/secrets.key")).expect("text");
    assert!(!shown.contains(text.lines().last().expect("a key")));
}

#[test]
fn a_signature_holds_for_its_message_and_key_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let [key, other] = ["a", "b"].map(|name| HeadKey::open(&folder.path().join(name)).expect("k"));
    let signature = key.sign(b"head");
    assert!(verifies(key.public(), b"head", &signature));
    assert!(!verifies(key.public(), b"heap", &signature));
    assert!(!verifies(other.public(), b"head", &signature));
    for bad in ["", "AAAA", "%"] {
        assert!(!verifies(key.public(), b"head", bad) && !verifies(bad, b"head", &signature));
    }
}
