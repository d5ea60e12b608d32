"""Pictures, plots and reports for people to look at."""
