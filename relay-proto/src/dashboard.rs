//! The pages of the metrics port besides the metrics: a dashboard that the browser draws from them (rule C5).

use crate::http::{Content, HTML};

/// It brings all that it needs, and may ask nobody but this port.
const POLICY: &str = "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; \
     connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n";

pub(crate) fn page(path: &str) -> Option<Content<'static>> {
    let (media_type, body) = match path {
        "/" => (HTML, include_str!("dashboard/dashboard.html")),
        "/dashboard.css" => ("text/css; charset=utf-8", include_str!("dashboard/dashboard.css")),
        "/dashboard.js" => ("text/javascript; charset=utf-8", include_str!("dashboard/dashboard.js")),
        _ => return None,
    };
    Some(Content { media_type, fields: POLICY, body })
}
