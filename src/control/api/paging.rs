//! Lists, a page at a time (contract §2.1).

use axum::{
    extract::{FromRequestParts, Query},
    http::request::Parts,
    response::{IntoResponse as _, Response},
};
use serde::Serialize;
use tokio::task::spawn_blocking;

use crate::control::http::answer::{Failure, json};

/// Items on a page when the client does not say.
const ITEMS_DEFAULT: usize = 100;
/// As many as MediaMTX takes: 31 bits.
const NUMBER_MAX: u64 = (1 << 31) - 1;
/// A longer page is written on a thread of its own, not between the requests of others.
const ITEMS_AT_ONCE: usize = 1000;

/// What a client asks for: `itemsPerPage`, `page`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paging {
    /// Never 0.
    per_page: usize,
    page: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PageBody<T> {
    item_count: usize,
    page_count: usize,
    items: Vec<T>,
}

impl<S: Send + Sync> FromRequestParts<S> for Paging {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let query = query(parts, state).await?;
        let per_page = match value(&query, "itemsPerPage") {
            None => ITEMS_DEFAULT,
            Some(text) => match number(text)? {
                0 => return Err(Failure::bad_request("invalid items per page")),
                number => number,
            },
        };
        let page = value(&query, "page").map_or(Ok(0), number)?;
        Ok(Self { per_page, page })
    }
}

/// The fields of a query, in order.
pub(super) async fn query<S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
) -> Result<Vec<(String, String)>, Failure> {
    match Query::<Vec<(String, String)>>::from_request_parts(parts, state).await {
        Ok(Query(fields)) => Ok(fields),
        Err(rejection) => Err(Failure::bad_request(rejection.body_text())),
    }
}

/// The first value of a field; an empty one counts as none.
pub(super) fn value<'a>(query: &'a [(String, String)], name: &str) -> Option<&'a str> {
    query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).filter(|text| !text.is_empty())
}

/// The words are MediaMTX's: there are clients that look at them.
fn number(text: &str) -> Result<usize, Failure> {
    let refuse = |why: &str| Failure::bad_request(format!("strconv.ParseUint: parsing {text:?}: {why}"));
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(refuse("invalid syntax"));
    }
    match text.parse::<u64>() {
        Ok(number) if number <= NUMBER_MAX => {
            usize::try_from(number).map_err(|_| refuse("value out of range"))
        }
        _ => Err(refuse("value out of range")),
    }
}

impl Paging {
    /// The page of `items` that was asked for; `render` makes of an item what the client sees.
    pub(super) async fn page<T, R>(self, items: Vec<T>, render: impl Fn(T) -> R + Send + 'static) -> Response
    where
        T: Send + 'static,
        R: Serialize,
    {
        let item_count = items.len();
        let page_count = item_count.div_ceil(self.per_page);
        let start = self.page.saturating_mul(self.per_page);
        let page: Vec<T> = items.into_iter().skip(start).take(self.per_page).collect();
        let write = move |page: Vec<T>| {
            json(&PageBody { item_count, page_count, items: page.into_iter().map(render).collect() })
        };
        if page.len() <= ITEMS_AT_ONCE {
            return write(page);
        }
        match spawn_blocking(move || write(page)).await {
            Ok(response) => response,
            Err(error) => Failure::internal(format!("the list cannot be written: {error}")).into_response(),
        }
    }
}
