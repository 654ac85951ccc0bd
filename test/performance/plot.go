package main

import (
	"bytes"
	"cmp"
	"fmt"
	"html/template"
	"math"
	"slices"
	"strconv"
)

// plot is a chart: bars, or lines over x.
type plot struct {
	title, x, y string
	bars        []bar
	lines       []series
}

type bar struct {
	Name  string
	Value float64
}

// series is a line of a plot.
type series struct {
	name   string
	points []point
}

type point struct{ x, y float64 }

func (s *series) add(x, y float64) { s.points = append(s.points, point{x, y}) }

// The geometry of a chart, in pixels.
const (
	width, height = 640, 360
	left, right   = 70, 150
	top, bottom   = 40, 50
	lineHeight    = 14
)

var colors = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7"}

// shape is what is drawn in a chart.
type shape struct {
	Lines  []drawnLine
	Rects  []rect
	Texts  []text
	Title  string
	X, Y   string
	Ground float64
}

type drawnLine struct{ Points, Color string }

type rect struct {
	X, Y, Width, Height float64
	Color               string
}

type text struct {
	X, Y   float64
	Anchor string
	Text   string
}

var chart = template.Must(template.New("chart").Parse(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 360" font-family="sans-serif" font-size="12">
<rect width="640" height="360" fill="white"/>
<text x="320" y="20" text-anchor="middle" font-size="15">{{.Title}}</text>
<path d="M70 40V{{.Ground}}H490" fill="none" stroke="black"/>
<text x="280" y="350" text-anchor="middle">{{.X}}</text>
<text x="16" y="175" text-anchor="middle" transform="rotate(-90 16 175)">{{.Y}}</text>
{{range .Rects}}<rect x="{{.X}}" y="{{.Y}}" width="{{.Width}}" height="{{.Height}}" fill="{{.Color}}"/>
{{end}}{{range .Lines}}<polyline points="{{.Points}}" fill="none" stroke="{{.Color}}" stroke-width="2"/>
{{end}}{{range .Texts}}<text x="{{.X}}" y="{{.Y}}" text-anchor="{{.Anchor}}">{{.Text}}</text>
{{end}}</svg>
`))

func (p plot) svg() []byte {
	s := shape{Title: p.title, X: p.x, Y: p.y, Ground: height - bottom}
	if len(p.bars) > 0 {
		s.drawBars(p.bars)
	} else {
		s.drawLines(p.lines)
	}
	var b bytes.Buffer
	if err := chart.Execute(&b, s); err != nil {
		panic(err) // the template is fixed
	}
	return b.Bytes()
}

func (s *shape) drawBars(bars []bar) {
	most := 0.0
	for _, b := range bars {
		most = max(most, b.Value)
	}
	step := float64(width-left-right) / float64(len(bars))
	for i, b := range bars {
		h := b.Value / most * (height - top - bottom)
		x := left + (float64(i)+0.2)*step
		s.Rects = append(s.Rects, rect{x, s.Ground - h, 0.6 * step, h, colors[i%len(colors)]})
		s.Texts = append(s.Texts, text{x + 0.3*step, s.Ground + 18, "middle", b.Name}, text{x + 0.3*step, s.Ground - h - 5, "middle", number(b.Value)})
	}
}

// drawLines draws lines on logarithmic axes.
func (s *shape) drawLines(lines []series) {
	xs, ys := axis{}, axis{}
	for _, l := range lines {
		for _, p := range l.points {
			xs.include(p.x)
			ys.include(p.y)
		}
	}
	for _, v := range xs.ticks() {
		s.Texts = append(s.Texts, text{left + xs.part(v)*(width-left-right), s.Ground + 18, "middle", number(v)})
	}
	for _, v := range ys.ticks() {
		s.Texts = append(s.Texts, text{left - 6, s.Ground - ys.part(v)*(height-top-bottom) + 4, "end", number(v)})
	}
	labels := make([]float64, 0, len(lines)) // how high they stand
	for i, l := range lines {
		var b bytes.Buffer
		var y float64
		for _, p := range l.points {
			y = s.Ground - ys.part(p.y)*(height-top-bottom)
			fmt.Fprintf(&b, "%.1f,%.1f ", left+xs.part(p.x)*(width-left-right), y)
		}
		s.Lines = append(s.Lines, drawnLine{b.String(), colors[i%len(colors)]})
		for slices.ContainsFunc(labels, func(other float64) bool { return math.Abs(other-y) < lineHeight }) {
			y += lineHeight
		}
		labels = append(labels, y)
		s.Texts = append(s.Texts, text{width - right + 6, math.Round(y) + 4, "start", l.name})
	}
}

// axis is a logarithmic one.
type axis struct{ low, high float64 }

func (a *axis) include(v float64) {
	if v <= 0 {
		return
	}
	decade := math.Pow(10, math.Floor(math.Log10(v)))
	a.low = min(cmp.Or(a.low, decade), decade)
	if v > decade {
		decade *= 10
	}
	a.high = max(a.high, decade)
}

// part returns where v is between both ends.
func (a *axis) part(v float64) float64 {
	if v <= a.low || a.high <= a.low {
		return 0
	}
	return math.Log10(v/a.low) / math.Log10(a.high/a.low)
}

func (a *axis) ticks() []float64 {
	var all []float64
	for v := a.low; v > 0 && v <= a.high*1.001; v *= 10 {
		all = append(all, v)
	}
	return all
}

// number returns v with three digits, and all of a large number.
func number(v float64) string {
	if v >= 100 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}
