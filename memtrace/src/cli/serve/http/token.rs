//! Who may ask.

use axum::http::{HeaderMap, header::AUTHORIZATION};

/// Tells whether a request bears the token, if there is one. Takes as long for a wrong one as for the right
/// one.
pub(super) fn lets_in(token: Option<&str>, headers: &HeaderMap) -> bool {
    let Some(token) = token else { return true };
    let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    let differences = token.bytes().zip(given.bytes().chain(std::iter::repeat(0)));
    let differs = differences.fold(0, |sum, (one, other)| sum | (one ^ other));
    differs == 0 && given.len() == token.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_itself_lets_in() {
        let token = Some("0123456789abcdef");
        let asks = |value: Option<&str>| {
            let headers = value.map(|value| (AUTHORIZATION, value.parse().expect("a header")));
            lets_in(token, &headers.into_iter().collect())
        };
        assert!(asks(Some("Bearer 0123456789abcdef")));
        for wrong in ["Bearer 0123456789abcdeg", "Bearer 0123456789abcde", "0123456789abcdef"] {
            assert!(!asks(Some(wrong)), "{wrong}");
        }
        assert!(!asks(Some("Bearer 0123456789abcdef0")) && !asks(None) && !asks(Some("Bearer ")));
        assert!(lets_in(None, &HeaderMap::new()));
    }
}
