"""Draw a run's folder as one HTML page, `report.html`; `coordconv_apps.compare` draws its pages with the same parts."""
