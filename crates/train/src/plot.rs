//! `loss.svg`: the losses of a run over its steps.

use plotters::prelude::*;

use crate::metrics::Series;

/// Draws the training loss, its running mean, and the validation loss. `None` if there is nothing to draw.
pub(crate) fn draw(losses: &Series) -> Result<Option<String>, String> {
    let all = losses.train.iter().chain(&losses.val);
    let (mut low, mut high, mut last) = (f64::INFINITY, f64::NEG_INFINITY, 1.0f64);
    for &(step, loss) in all.filter(|(_, loss)| loss.is_finite()) {
        (low, high, last) = (low.min(loss), high.max(loss), last.max(step as f64));
    }
    if low > high {
        return Ok(None);
    }
    let margin = 0.05 * (high - low).max(0.1);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (900, 500)).into_drawing_area();
        chart(&area, losses, last, (low - margin)..(high + margin)).map_err(|error| error.to_string())?;
    }
    Ok(Some(svg))
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

fn chart(
    area: &DrawingArea<SVGBackend, plotters::coord::Shift>,
    losses: &Series,
    last: f64,
    y: std::ops::Range<f64>,
) -> Drawn {
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(area)
        .margin(16)
        .x_label_area_size(36)
        .y_label_area_size(48)
        .build_cartesian_2d(0.0..last, y)?;
    chart.configure_mesh().x_desc("step").y_desc("loss, nats a token").light_line_style(WHITE).draw()?;
    let points = |series: &[(u64, f64)]| -> Vec<(f64, f64)> {
        series.iter().filter(|(_, loss)| loss.is_finite()).map(|&(step, loss)| (step as f64, loss)).collect()
    };
    let (raw, mean, val) = (RGBColor(190, 205, 230), RGBColor(40, 90, 180), RGBColor(200, 70, 40));
    let legend =
        |color: RGBColor| move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2));
    chart.draw_series(LineSeries::new(points(&losses.train), raw))?.label("training").legend(legend(raw));
    let smooth = running_mean(&points(&losses.train));
    chart
        .draw_series(LineSeries::new(smooth, mean.stroke_width(2)))?
        .label("training, mean")
        .legend(legend(mean));
    if !losses.val.is_empty() {
        let line = LineSeries::new(points(&losses.val), val.stroke_width(2)).point_size(3);
        chart.draw_series(line)?.label("validation").legend(legend(val));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.3)).draw()?;
    area.present()?;
    Ok(())
}

/// Each point becomes a mean in which the past fades, over about a thirtieth of the run.
fn running_mean(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let keep = 1.0 - 1.0 / (points.len() as f64 / 30.0).max(1.0);
    let mut mean = None;
    let next = |&(x, y): &(f64, f64)| {
        let now = mean.map_or(y, |mean: f64| keep * mean + (1.0 - keep) * y);
        mean = Some(now);
        (x, now)
    };
    points.iter().map(next).collect()
}
