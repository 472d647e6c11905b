package main

import (
	"image/color"

	// Kept: it draws axes, logarithmic ones and error bars too, and writes SVG.
	goplot "gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"

	"github.com/vmgate/vmgate/internal/bench/result"
)

// spread is a line's points with their extent, as plotter wants it.
type spread []result.Point

func (s spread) Len() int                { return len(s) }
func (s spread) XY(i int) (x, y float64) { return s[i].X, s[i].Median }
func (s spread) YError(i int) (below, above float64) {
	return s[i].Median - s[i].Min, s[i].Max - s[i].Median
}

// plot draws a series into an SVG file.
func plot(series result.Series, path string) error {
	p := goplot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = series.Title, series.X, series.Y
	p.BackgroundColor = color.White
	p.Legend.Top = true
	p.Add(plotter.NewGrid())
	if series.LogX {
		p.X.Scale, p.X.Tick.Marker = goplot.LogScale{}, goplot.LogTicks{Prec: -1}
	}
	for i, one := range series.Lines {
		line, points, err := plotter.NewLinePoints(spread(one.Points))
		if err != nil {
			return err
		}
		bars, err := plotter.NewYErrorBars(spread(one.Points))
		if err != nil {
			return err
		}
		line.Color, points.Color, bars.Color = plotutil.Color(i), plotutil.Color(i), plotutil.Color(i)
		points.Shape = plotutil.Shape(i)
		p.Add(line, points, bars)
		p.Legend.Add(one.Name, line, points)
	}
	p.Y.Min = min(p.Y.Min, 0)
	return p.Save(18*vg.Centimeter, 10*vg.Centimeter, path)
}
