// The series of a text exposition in client_golang's GaugeVec behind promhttp: what most exporters are made of.
// vec FILE ADDRESS. Types do not matter to the cost, so all are gauges.
package main

import (
	"bufio"
	"log"
	"net/http"
	"os"
	"regexp"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

func main() {
	sample := regexp.MustCompile(`^(\w+)\{(.*)\} (\S+)$`)
	label := regexp.MustCompile(`(\w+)="([^"]*)"`)
	file, err := os.Open(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	vectors := map[string]*prometheus.GaugeVec{}
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		parts := sample.FindStringSubmatch(lines.Text())
		if parts == nil {
			continue
		}
		names, labels := []string{}, prometheus.Labels{}
		for _, pair := range label.FindAllStringSubmatch(parts[2], -1) {
			names = append(names, pair[1])
			labels[pair[1]] = pair[2]
		}
		vector, known := vectors[parts[1]]
		if !known {
			vector = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: parts[1], Help: "Help."}, names)
			prometheus.MustRegister(vector)
			vectors[parts[1]] = vector
		}
		value, err := strconv.ParseFloat(parts[3], 64)
		if err != nil {
			log.Fatal(err)
		}
		vector.With(labels).Set(value)
	}
	http.Handle("/metrics", promhttp.Handler())
	log.Fatal(http.ListenAndServe(os.Args[2], nil))
}
