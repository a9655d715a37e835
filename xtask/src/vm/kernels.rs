//! Which kernels: from what a person asks for to the release that apt has today.

use std::fmt;

use anyhow::{Result, bail};

use super::version;

/// The ending of the kernels' names; the cloud flavour is the smallest that has all we need.
pub(super) const FLAVOUR: &str = "-cloud-amd64";

/// Where Debian's newest kernel is.
const NEWEST_SUITE: &str = "trixie-backports/";

/// What `all` stands for.
const MATRIX: [&str; 5] = ["5.10", "6.1", "6.12", "6.18", "newest"];

/// A kernel that someone asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// The newest release of a line such as `6.12`.
    Series(String),
    /// The newest release that Debian backports.
    Newest,
    /// One release such as `6.12.95+deb13-cloud-amd64`; it may vanish any day.
    Release(String),
}

/// A kernel package that apt has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// What follows `linux-image-` in the package's name.
    pub(super) release: String,
    pub(super) version: String,
    /// Suite and component, `trixie-backports/main`.
    suite: String,
}

/// Reads the `--kernels` option.
pub(super) fn wanted(words: &[String]) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    let words = words
        .iter()
        .map(String::as_str)
        .flat_map(|word| if word == "all" { MATRIX.to_vec() } else { vec![word] });
    for word in words {
        let line = Line::parse(word)?;
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    Ok(lines)
}

impl Line {
    fn parse(word: &str) -> Result<Self> {
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if word == "newest" {
            Ok(Self::Newest)
        } else if word.ends_with(FLAVOUR) {
            Ok(Self::Release(word.to_owned()))
        } else if word.split('.').count() == 2 && word.split('.').all(is_number) {
            Ok(Self::Series(word.to_owned()))
        } else {
            bail!("{word:?} is no kernel: write 6.12, newest, all, or a release{FLAVOUR}")
        }
    }

    /// Is it an error that apt has no such kernel? Only these lines live as long as their suite.
    pub(super) fn is_required(&self) -> bool {
        match self {
            Self::Newest => true,
            Self::Series(series) => series == "6.1" || series == "6.12",
            Self::Release(_) => false,
        }
    }

    /// Picks the newest of the candidates that belong to this line.
    pub(super) fn resolve<'a>(&self, candidates: &'a [Candidate]) -> Option<&'a Candidate> {
        candidates
            .iter()
            .filter(|candidate| match self {
                Self::Series(series) => candidate
                    .release
                    .strip_prefix(series.as_str())
                    .is_some_and(|rest| rest.starts_with('.')),
                Self::Newest => candidate.suite.starts_with(NEWEST_SUITE),
                Self::Release(release) => candidate.release == *release,
            })
            .max_by(|left, right| version::compare(&left.version, &right.version))
    }
}

impl fmt::Display for Line {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Series(name) | Self::Release(name) => out.write_str(name),
            Self::Newest => out.write_str("newest"),
        }
    }
}

/// Picks the packages of our flavour from `apt-cache pkgnames linux-image-`.
pub(super) fn packages(names: &str) -> Vec<&str> {
    names
        .lines()
        .filter(|name| {
            name.strip_prefix("linux-image-")
                .and_then(|name| name.strip_suffix(FLAVOUR))
                .is_some_and(|release| {
                    release.starts_with(|c: char| c.is_ascii_digit()) && !release.ends_with("-rt")
                })
        })
        .collect()
}

/// Reads `apt-cache madison`: `package | version | address suite/component arch Packages`.
pub(super) fn candidates(madison: &str) -> Vec<Candidate> {
    madison
        .lines()
        .filter_map(|line| {
            let mut fields = line.split('|').map(str::trim);
            let release = fields.next()?.strip_prefix("linux-image-")?.to_owned();
            let version = fields.next()?.to_owned();
            let suite = fields.next()?.split(' ').nth(1)?.to_owned();
            Some(Candidate { release, version, suite })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MADISON: &str = "\
linux-image-6.1.0-9-cloud-amd64 | 6.1.27-1 | http://mirror/debian bookworm/main amd64 Packages
linux-image-6.1.0-56-cloud-amd64 |  6.1.192-2 | http://mirror/security bookworm-security/main amd64 Packages
linux-image-6.12.95+deb12-cloud-amd64 | 6.12.95-1~bpo12+1 | http://mirror/debian bookworm-backports/main amd64 Packages
linux-image-6.12.118+deb13-cloud-amd64 | 6.12.118-1 | http://mirror/security trixie-security/main amd64 Packages
linux-image-6.19.6+deb13-cloud-amd64 | 6.19.6-2~bpo13+1 | http://mirror/debian trixie-backports/main amd64 Packages
linux-image-7.3.4+deb13-cloud-amd64 | 7.3.4-1~bpo13+1 | http://mirror/debian trixie-backports/main amd64 Packages
linux-image-7.10.1+deb13-cloud-amd64 | 7.10.1-1~bpo13+1 | http://mirror/debian trixie-backports/main amd64 Packages
linux-image-8.0.0+deb14-cloud-amd64 | 8.0.0-1 | http://mirror/debian sid/main amd64 Packages
";

    fn resolve(word: &str) -> Option<String> {
        let candidates = candidates(MADISON);
        let line = Line::parse(word).expect("a kernel");
        line.resolve(&candidates).map(|candidate| candidate.release.clone())
    }

    #[test]
    fn a_line_resolves_to_its_newest_release() {
        assert_eq!(resolve("6.1").as_deref(), Some("6.1.0-56-cloud-amd64"));
        assert_eq!(resolve("6.12").as_deref(), Some("6.12.118+deb13-cloud-amd64"));
        assert_eq!(resolve("6.18"), None);
    }

    #[test]
    fn newest_is_the_newest_backport() {
        assert_eq!(resolve("newest").as_deref(), Some("7.10.1+deb13-cloud-amd64"));
    }

    #[test]
    fn a_release_is_taken_as_it_is() {
        let release = "6.19.6+deb13-cloud-amd64";
        assert_eq!(resolve(release).as_deref(), Some(release));
    }

    #[test]
    fn all_is_the_matrix_and_no_kernel_comes_twice() {
        let words = ["6.12".to_owned(), "all".to_owned()];
        let lines: Vec<_> =
            wanted(&words).expect("kernels").iter().map(ToString::to_string).collect();
        assert_eq!(lines, ["6.12", "5.10", "6.1", "6.18", "newest"]);
    }

    #[test]
    fn what_is_no_kernel_is_refused() {
        for word in ["", "6", "latest", "6.", "6.1.0", "6.x"] {
            assert!(Line::parse(word).is_err(), "{word}");
        }
    }

    #[test]
    fn other_flavours_are_left_out() {
        let names = "linux-image-6.1.0-56-cloud-amd64\nlinux-image-6.1.0-56-amd64\n\
                     linux-image-cloud-amd64\nlinux-image-6.1.0-56-cloud-amd64-dbg\n\
                     linux-image-6.1.0-56-rt-amd64\nlinux-image-7.3.4+deb13-cloud-amd64-unsigned\n";
        assert_eq!(packages(names), ["linux-image-6.1.0-56-cloud-amd64"]);
    }

    #[test]
    fn only_lasting_lines_are_required() {
        let required = |word| Line::parse(word).expect("a kernel").is_required();
        assert!(required("6.1") && required("6.12") && required("newest"));
        assert!(!required("5.10") && !required("6.18"));
    }
}
