// Evaluate judges pod templates by the library that the API server itself uses for Pod Security. It reads {"name": template}
// as JSON and answers {"name": {"level-version": [reason, ...]}}.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

func main() {
	var templates map[string]corev1.PodTemplateSpec
	if err := json.NewDecoder(os.Stdin).Decode(&templates); err != nil {
		log.Fatal(err)
	}
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		log.Fatal(err)
	}
	answers := map[string]map[string][]string{}
	for name, template := range templates {
		answers[name] = map[string][]string{}
		for _, level := range []api.Level{api.LevelBaseline, api.LevelRestricted} {
			for _, minor := range []int{35, 37} {
				at := api.LevelVersion{Level: level, Version: api.MajorMinorVersion(1, minor)}
				reasons := []string{}
				for _, result := range evaluator.EvaluatePod(at, &template.ObjectMeta, &template.Spec) {
					if !result.Allowed {
						reasons = append(reasons, result.ForbiddenReason+": "+result.ForbiddenDetail)
					}
				}
				answers[name][fmt.Sprintf("%s-1.%d", level, minor)] = reasons
			}
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(answers); err != nil {
		log.Fatal(err)
	}
}
