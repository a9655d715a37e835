//! The version that a glibc says of itself (csu/version.c).

use crate::allocator::search::position;

/// Returns the minor version of glibc 2 out of the contents of its file.
pub fn minor_version(file: &[u8]) -> Option<u32> {
    // A development version has the layouts of what it will be.
    [(&b"stable release version 2."[..], 0), (b"development release version 2.", 1)]
        .into_iter()
        .find_map(|(words, more)| {
            let at = position(file, words)? + words.len();
            let digits = file[at..].iter().take(3).take_while(|byte| byte.is_ascii_digit());
            let minor = digits.fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
            (minor > 0).then_some(minor + more)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_tells_its_version() {
        let text = b"\0stable \0GNU C Library (Debian GLIBC 2.36-9) stable release version 2.36.\n";
        assert_eq!(minor_version(text), Some(36));
        assert_eq!(minor_version(b"development release version 2.39.9000."), Some(40));
        assert_eq!(minor_version(b"stable release version 2."), None);
        assert_eq!(minor_version(b"stable release vers"), None);
        assert_eq!(minor_version(b""), None);
    }
}
