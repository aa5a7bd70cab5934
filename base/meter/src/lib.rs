//! Counters, gauges, histograms and the Prometheus text.
