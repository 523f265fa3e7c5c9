//! Results: frames, leaderboards and plots.
