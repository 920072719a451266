//! An invoice as CSV (RFC 4180): a row for each line, which sum to the invoice.
//!
//! Invariant: no cell is a formula to a spreadsheet, whatever an organisation calls itself.

use axum::{
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};

use super::invoices::InvoiceView;

const TITLES: [&str; 9] = [
    "invoice_number",
    "status",
    "period",
    "billed_to",
    "tenant_id",
    "organization_name",
    "cost_allocation_percentage",
    "amount",
    "currency",
];

pub(super) fn answer(invoice: &InvoiceView) -> Response {
    let mut text = row(TITLES);
    for line in &invoice.line_items {
        text += &row([
            invoice.invoice_number.as_deref().unwrap_or_default(),
            invoice.status,
            &invoice.period,
            &invoice.billed_to.to_string(),
            &line.tenant_id.to_string(),
            &line.organization_name,
            &line.cost_allocation_percentage.to_string(),
            &line.amount,
            &invoice.currency,
        ]);
    }
    let file = format!("attachment; filename=\"invoice-{}.csv\"", invoice.period);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (
            header::CONTENT_DISPOSITION,
            HeaderValue::try_from(file).unwrap_or_else(|_| HeaderValue::from_static("attachment")),
        ),
    ];
    (headers, text).into_response()
}

fn row<'a>(cells: impl IntoIterator<Item = &'a str>) -> String {
    let cells: Vec<_> = cells.into_iter().map(cell).collect();
    cells.join(",") + "\r\n"
}

/// A cell, quoted where it must be; what a spreadsheet would run is made text.
fn cell(text: &str) -> String {
    let runs = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if runs { format!("'{text}") } else { text.to_owned() };
    if text.contains(['"', ',', '\r', '\n']) {
        return format!("\"{}\"", text.replace('"', "\"\""));
    }
    text
}

/// Whether the Accept fields prefer CSV to JSON; JSON where they do not say.
pub(super) fn is_preferred(headers: &HeaderMap) -> bool {
    let fields = headers.get_all(header::ACCEPT).iter().filter_map(|field| field.to_str().ok());
    let mut best = (0.0, false);
    for range in fields.flat_map(|field| field.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let is_csv = match kind.as_str() {
            "text/csv" => true,
            "application/json" | "application/*" | "*/*" => false,
            _ => continue,
        };
        let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok()).unwrap_or(1.0);
        if weight > best.0 {
            best = (weight, is_csv);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_quoted_where_it_must_be_and_never_runs() {
        for (text, expected) in [
            ("Acme", "Acme"),
            ("Acme, Inc.", "\"Acme, Inc.\""),
            ("the \"A\"", "\"the \"\"A\"\"\""),
            ("=1+1", "'=1+1"),
            ("@x,y", "\"'@x,y\""),
            ("", ""),
        ] {
            assert_eq!(cell(text), expected);
        }
    }

    #[test]
    fn the_accept_field_with_the_greatest_weight_decides() {
        for (accept, expected) in [
            ("text/csv", true),
            ("TEXT/CSV", true),
            ("application/json, text/csv", false),
            ("application/json;q=0.5, text/csv", true),
            ("*/*", false),
            ("text/csv;q=0", false),
            ("text/html", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(is_preferred(&headers), expected, "{accept}");
        }
        assert!(!is_preferred(&HeaderMap::new()));
    }
}
