//! The section that says how far the scores of a study can be trusted; empty for a study of one fidelity.

use super::ReportedStudy;
use super::escape::text;
use crate::report::{AgreementOptions, study_reliability};
use std::fmt::Write;

const OPTIONS: AgreementOptions = AgreementOptions { top: 5, samples: 1000, seed: 0 };

/// The section as HTML.
pub(super) fn section(study: &ReportedStudy) -> String {
    let rows = study_reliability(&study.trials, &study.record.settings.objective, OPTIONS);
    if rows.is_empty() {
        return String::new();
    }
    let mut html = format!(
        "<section id=\"reliability\">\n<h2>How far the scores can be trusted</h2>\n<p class=\"note\">Each fidelity \
         against the highest that was reached, over the candidates that were scored at both. Kendall’s tau is 1 for \
         the same order, 0 for none; the regret is what the best of the first {} loses against the best of all. In \
         brackets: the middle 95 % of {} bootstrap samples. Only good candidates rise, and these are harder to tell \
         apart than all are.</p>\n<div class=\"scroll\"><table class=\"facts\"><thead><tr>",
        OPTIONS.top, OPTIONS.samples
    );
    for head in ["Score", "Fidelity", "Against", "Candidates", "Kendall’s tau", "Spearman", "Regret"] {
        let _ = write!(html, "<th scope=\"col\">{head}</th>");
    }
    html += "</tr></thead><tbody>\n";
    for row in rows {
        let number = |value: Option<f64>, interval: Option<[f64; 2]>, digits: usize| match (value, interval) {
            (Some(value), Some([low, high])) => {
                format!("{value:.digits$} ({low:.digits$} to {high:.digits$})")
            }
            (Some(value), None) => format!("{value:.digits$}"),
            (None, _) => "–".into(),
        };
        let agreement = &row.agreement;
        let _ = writeln!(
            html,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            text(&row.metric),
            text(&row.fidelity),
            text(&row.against),
            agreement.architectures,
            number(agreement.tau, agreement.tau_interval, 2),
            number(agreement.spearman, agreement.spearman_interval, 2),
            number(agreement.regret, agreement.regret_interval, 4),
        );
    }
    html += "</tbody></table></div>\n</section>\n";
    html
}
