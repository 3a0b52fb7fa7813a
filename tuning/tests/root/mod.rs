//! A directory that stands for `/`, for the tests of whatever reads the kernel's files.

use tempfile::TempDir;

/// A root directory with these files: path below it, and text.
pub fn root_with(files: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().expect("a temporary directory");
    for (name, text) in files {
        let path = root.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, text).expect("a file");
    }
    root
}
