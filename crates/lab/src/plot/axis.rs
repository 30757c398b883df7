//! Linear axes: value to pixel, and tick labels.

/// A range of values mapped to a range of pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    step: f64,
    from: f64,
    to: f64,
}

impl Axis {
    /// Creates an axis over all finite `values`, extended to whole steps, from pixel `from` to
    /// pixel `to`.
    pub(super) fn over(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (low, high) = values
            .filter(|value| value.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        let (low, high) = match (low, high) {
            _ if low > high => (0.0, 1.0),
            _ if low == high => (low - 0.5, high + 0.5),
            range => range,
        };
        let step = nice((high - low) / ((to - from).abs() / 60.0).clamp(2.0, 8.0));
        Self { low: (low / step).floor() * step, high: (high / step).ceil() * step, step, from, to }
    }

    /// Creates an axis that ends at the extreme values, for quantities such as steps.
    pub(super) fn within(values: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Self {
        let axis = Self::over(values.clone(), from, to);
        let finite = values.filter(|value| value.is_finite());
        let (low, high) = finite.fold((axis.high, axis.low), |(low, high), value| (low.min(value), high.max(value)));
        if low < high { Self { low, high, ..axis } } else { axis }
    }

    pub(super) fn place(&self, value: f64) -> f64 {
        let share = (value - self.low) / (self.high - self.low);
        self.from + share * (self.to - self.from)
    }

    /// Values of the ticks with their labels.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        let first = (self.low / self.step - 1e-9).ceil() as i64;
        let last = (self.high / self.step + 1e-9).floor() as i64;
        (first..=last).map(|i| i as f64 * self.step).map(|value| (value, self.label(value))).collect()
    }

    fn label(&self, value: f64) -> String {
        if value.abs() < self.step / 2.0 {
            return "0".into();
        }
        if self.step >= 1000.0 {
            return format!("{}k", value / 1000.0);
        }
        let decimals = (-self.step.log10().floor()).max(0.0) as usize;
        format!("{value:.decimals$}")
    }
}

/// Rounds `step` up to 1, 2 or 5 times a power of ten.
fn nice(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= step * (1.0 - 1e-9)).unwrap_or(10.0);
    factor * power
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(values: &[f64], length: f64) -> Vec<String> {
        Axis::over(values.iter().copied(), 0.0, length).ticks().into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn ticks_are_round_and_within() {
        assert_eq!(labels(&[0.0, 1.0], 300.0), ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(&[-3.2, 0.4], 240.0), ["-4", "-3", "-2", "-1", "0", "1"]);
        assert_eq!(labels(&[0.0, 12_000.0], 400.0), ["0", "2k", "4k", "6k", "8k", "10k", "12k"]);
        assert_eq!(labels(&[2.0, 2.0], 180.0), ["1.5", "2.0", "2.5"]);
        assert_eq!(labels(&[f64::NAN], 180.0), ["0", "0.5", "1.0"]);
    }

    #[test]
    fn places_are_linear() {
        let axis = Axis::over([0.0, 10.0].into_iter(), 100.0, 0.0);
        assert_eq!((axis.place(0.0), axis.place(5.0), axis.place(10.0)), (100.0, 50.0, 0.0));
    }
}
