"""What tests of several rooms share: real worlds from real signed entries, and clocks that obey."""
